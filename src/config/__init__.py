"""From the command line and YAML files to objects: the only room that knows Hydra."""
