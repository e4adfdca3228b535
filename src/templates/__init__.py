"""The pages that runs, evaluations, sweeps and searches leave behind: their Jinja templates. What is shown in them is not decided here."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PAGES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, undefined=StrictUndefined)
