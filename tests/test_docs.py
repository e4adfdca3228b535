"""The documentation: commands compose, links and named files exist, code blocks run."""

import functools
import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import QUICK, ROOT, composed, run_script, run_training
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, ROOT / "benchmarks" / "README.md"]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
CODE_PAGES = ["README.md", "docs/your_own.md"]  # their code blocks are files for the reader to add
LAUNCHERS = ("submitit", "ray")  # their configs come with extras; tests/sweeps composes them
EXAMPLES = ("my_augment", "my_callback", "my_logger", "my_metric", "my_optimizer", "my_recipe")
EXAMPLES += ("my_schedule", "my_search", "my_task")  # names in a table of docs/architecture.md


def read(page: Path | str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@functools.cache
def files_to_add(page: str) -> dict[str, str]:
    """Contents of the files that a page shows, by path: `path`, a colon and a code block."""
    found = re.findall(r"`((?:src|conf)/[\w/]+\.\w+)`[^`]*:\n\n```\w+\n(.*?)```", read(page), re.S)
    return dict(found)


def added_names() -> set[str]:
    """What these files are called on a command line: `my_net`, `stripes`, ..."""
    return {Path(path).stem for page in CODE_PAGES for path in files_to_add(page)}


# Commands


def commands(page: str) -> list[str]:
    """Commands that run a script of the project, in shell blocks and in backticks."""
    text = read(page)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^    (python .*)$", text, re.MULTILINE)
    lines += re.findall(r"`((?:python|torchrun) [^`]*)`", without_code(text))
    runs_script = re.compile(r"(?<![/\w])\w+\.py\b")
    return [
        line.strip()
        for line in lines
        if runs_script.search(line) and "<TAB>" not in line and not line.startswith("eval ")
    ]


# Each command once, with the first page that has it.
COMMANDS = {command: name for name in reversed(NAMES) for command in commands(name)}


def test_the_pages_have_commands():
    assert len(COMMANDS) > 60
    assert set(COMMANDS.values()) >= {"README.md", "docs/recipes.md", "docs/sweeps.md"}


def split_command(command: str) -> tuple[str, list[str]]:
    """The script and its arguments."""
    words = shlex.split(command.replace("$(", "").replace(")", ""))
    position = next(i for i, word in enumerate(words) if re.fullmatch(r"(\w+/)*\w+\.py", word))
    return words[position], words[position + 1 :]


def first_choices(script: str, arguments: list[str]) -> list[str]:
    """The overrides of a command, the first value of each that is swept."""
    is_override = re.compile(r"[~+\w].*=|~")
    typed = [a.replace("...", "x") for a in arguments if is_override.match(a)]
    typed = [a for a in typed if not a.startswith(("install=", "uninstall="))]
    overrides = []
    for override in OverridesParser.create().parse_overrides(typed):
        if not override.is_sweep_override():
            overrides.append(override.input_line)
        elif script in ("train.py", "search.py"):  # elsewhere commas are between paths
            first = next(iter(override.sweep_string_iterator()))
            overrides.append(f"{override.get_key_element()}={first}")
    return overrides


@functools.cache
def config_name(script: str) -> str:
    return re.search(r'config_name="(\w+)"', read(script))[1]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{COMMANDS[command]}: {command}")
def test_every_command_composes(command):
    from src.config.validate import validate

    script, arguments = split_command(command)
    assert "#" not in arguments  # zsh passes a comment on to the program
    assert (ROOT / script).is_file()
    added = (*LAUNCHERS, *added_names(), "...")
    if "/" in script or any(name in word for word in arguments for name in added):
        return
    cfg = composed(first_choices(script, arguments), config_name(script))
    if script == "train.py":
        validate(OmegaConf.to_container(cfg, resolve=True))


@pytest.mark.parametrize(
    ("typed", "completion"),
    [("model=si", "model=simple_v3"), ("optimizer.l", "optimizer.lr="), ("data=di", "data=digits")],
)
def test_tab_completion(typed, completion):
    line = f"python train.py {typed}"
    query = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    result = run_script("train.py", "-sc", "query=bash", **query)
    assert completion in result.stdout.split(), result.stderr


# Links and names


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", without_code(read(page)), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(read(page))):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_in_backticks_exist(page):
    """Paths from a top-level folder on, and bare names of Python files."""
    folders = r"src|conf|tests|docs|benchmarks|notebooks|hydra_plugins|\.ci"
    scripts = {path.name for path in ROOT.glob("*.py")}
    scripts |= {path.name for path in (ROOT / "src").rglob("*.py")}
    added = added_names() | {"bulk_runner"}  # timm's
    for quoted in re.findall(r"`([^`\n]+)`", without_code(read(page))):
        stem = Path(quoted).stem
        if stem in added or stem.startswith(EXAMPLES):
            continue
        if re.fullmatch(rf"(?:{folders})(?:/[\w./-]*)?", quoted):
            assert (ROOT / quoted).exists(), quoted
        elif re.fullmatch(r"\w+\.py", quoted):
            assert quoted in scripts, quoted


def test_the_path_through_the_code_is_short():
    """docs/architecture.md: one run and one batch, in at most 8 files and 1,200 lines."""
    steps = re.findall(r"^\d\. `([\w/]+\.py)`", read("docs/architecture.md"), re.MULTILINE)
    assert 5 <= len(steps) <= 8
    lines = {step: read(step).count("\n") for step in steps}
    assert sum(lines.values()) <= 1200, lines


def test_documentation_names_every_file_of_a_run(finished_run):
    page = read("docs/runs.md")
    names = [path.name for path in finished_run.iterdir() if not path.name.startswith(".")]
    for name in names:
        assert f"`{name}" in page, name


# Code blocks


@pytest.fixture
def added_files(request, tmp_path, monkeypatch):
    """A folder with the files of a page in it, found as if they were part of the project."""
    for path, content in files_to_add(request.param).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8")
    modules = [path.relative_to(tmp_path) for path in tmp_path.glob("src/*/*.py")]
    for module in modules:
        package = importlib.import_module(".".join(module.parent.parts))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / module.parent)])
    yield tmp_path
    for module in modules:
        sys.modules.pop(".".join(module.with_suffix("").parts), None)


def train_with(folder: Path, *arguments: str) -> dict:
    """`python train.py ...` with the added files, for a few steps; the content of results.json."""
    searched = f"hydra.searchpath=[file://{folder}/conf]"
    return run_training(folder / "run", searched, *QUICK, *arguments)


@pytest.mark.parametrize("added_files", ["README.md"], indirect=True)
@pytest.mark.parametrize("splits", [("train", "test"), ("train",)], ids=" ".join)
def test_the_network_and_the_data_set_of_the_readme_train(added_files, splits):
    for split in splits:
        images = np.random.default_rng(0).integers(0, 256, (40, 1, 64, 64), dtype=np.uint8)
        np.savez(added_files / f"my_data_{split}.npz", images=images, labels=np.arange(40) % 2)
    own = ["model=my_net", "model.width=64", "data=my_data", f"data.root={added_files}"]
    results = train_with(added_files, *own)
    assert results["status"] == "completed"
    assert results["num_parameters"] == 64 * 9 + 64 + 64 * 2 + 2
    assert (results["test"] is not None) == ("test" in splits)


def test_the_chinese_page_shows_the_same_files():
    """docs/your_own.zh-CN.md has some of the files of the English page, and no others."""
    page = read("docs/your_own.zh-CN.md")
    shown = re.findall(r"`((?:src|conf)/[\w/]+\.\w+)`[^`\n]*\n\n```\w+\n(.*?)```", page, re.S)
    assert len(shown) >= 2
    assert set(shown) <= set(files_to_add("docs/your_own.md").items())


def own_commands() -> list[str]:
    """Commands of docs/your_own.md that use files which the page adds."""
    names = "|".join(added_names())
    page = "docs/your_own.md"
    return [c for c in commands(page) if re.search(rf"=\[?({names}|\w+,wandb)\b", c)]


def test_every_yaml_file_of_the_page_is_used():
    used = " ".join(own_commands())
    for path in files_to_add("docs/your_own.md"):
        assert path.startswith("src/") or Path(path).stem in used, path


@pytest.mark.parametrize("added_files", ["docs/your_own.md"], indirect=True)
def test_your_own_parts_train(added_files):
    """All commands of the page in one run, except for those that need another package or task."""
    typed: dict[str, str] = {"model": "lenet"}
    for command in own_commands():
        if not re.search("wandb|distillation|mean_teacher", command):
            typed |= dict(word.split("=", 1) for word in split_command(command)[1])
    results = train_with(added_files, *(f"{key}={value}" for key, value in typed.items()))
    assert results["status"] == "completed"
    assert set(results["metrics"]) == {"kappa", "f1"}
    run = added_files / "run"
    assert (run / "metrics.jsonl").is_file()
    assert "weight_norm" in (run / "metrics.csv").read_text().splitlines()[0].split(",")
    config = OmegaConf.load(run / "config.yaml")
    assert config.task.loss._target_ == "src.tasks.focal_loss.FocalLoss"
    assert config.optimizer._target_ == "torch.optim.NAdam"


@pytest.mark.parametrize("added_files", ["docs/your_own.md"], indirect=True)
def test_your_own_task_trains_and_saves_the_student_alone(added_files, finished_run):
    import src

    (command,) = [c for c in own_commands() if "distillation" in c]
    arguments = split_command(command.replace("runs/NAME", str(finished_run)))[1]
    assert train_with(added_files, *arguments)["status"] == "completed"
    student, teacher = (
        src.load(run / "checkpoints" / "best.ckpt") for run in (added_files / "run", finished_run)
    )
    assert student.state_dict().keys() == teacher.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("added_files", ["docs/your_own.md"], indirect=True)
def test_a_mean_teacher_trains_and_its_network_loads(added_files):
    import src

    (command,) = [c for c in own_commands() if "mean_teacher" in c]
    arguments = [*split_command(command)[1], "model=resnet9", "model.width=8"]
    assert train_with(added_files, *arguments)["status"] == "completed"
    checkpoint = added_files / "run" / "checkpoints" / "best.ckpt"
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    network = src.load(checkpoint).state_dict()
    for name in ("layers.0.0.weight", "layers.0.1.running_mean"):
        assert not torch.equal(stored[f"teacher.module.{name}"], stored[f"model.{name}"])
        assert torch.equal(network[f"model.{name}"], stored[f"model.{name}"])
