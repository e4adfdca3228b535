"""What the documentation says: commands compose and fit what they name, links lead somewhere, files exist, tab completion answers."""

import functools
import re
import shlex

import pytest
from conftest import ROOT, composed, run_script
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from src.config_check import check

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
NEW = ("my_net", "my_data", "my_augment", "my_callbacks", "my_metric", "my_recipe")  # what the pages have their reader write
LAUNCHERS = ("submitit", "ray")  # their schemas come with extras; tests/test_sweeps.py composes these


def text(page):
    return page.read_text(encoding="utf-8")


def commands(page) -> list[str]:
    """The lines of the shell blocks, and what stands in backticks, as far as it runs an entry point of the project."""
    content = text(page)
    lines = [line for block in re.findall(r"```bash\n(.*?)```", content, re.S) for line in block.replace("\\\n", " ").splitlines()]
    lines += [line[4:] for line in re.findall(r"^    python .*$", content, re.M)]
    lines += re.findall(r"`((?:python|torchrun) [^`]*)`", re.sub(r"```.*?```", "", content, flags=re.S))
    return [
        line.strip() for line in lines if re.search(r"(?<![/\w])\w+\.py\b", line) and "<TAB>" not in line and not line.startswith("eval ")
    ]


COMMANDS = sorted({(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)})


def test_the_pages_hold_commands():
    assert len(COMMANDS) > 60 and {page for page, _ in COMMANDS} >= {"README.md", "docs/recipes.md", "docs/sweeps.md", "docs/scale.md"}


@functools.cache
def config_name(script: str) -> str:
    return re.search(r'config_name="(\w+)"', (ROOT / script).read_text(encoding="utf-8"))[1]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_composes_and_fits(page, command):
    words = shlex.split(command.replace("$(", "").replace(")", ""))
    assert "#" not in words  # zsh hands a comment to the program
    position = next(i for i, word in enumerate(words) if re.fullmatch(r"(\w+/)*\w+\.py", word))
    script, arguments = words[position], words[position + 1 :]
    assert (ROOT / script).is_file()
    if "/" in script:
        return  # of benchmarks: no config
    overrides = [word for word in arguments if "=" in word and not word.startswith(("-", "install=", "uninstall="))]
    if any(name in word for word in overrides for name in (*NEW, *LAUNCHERS)):
        return
    parsed = OverridesParser.create().parse_overrides([word.replace("...", "x") for word in overrides])
    first = [
        f"{override.get_key_element()}={next(override.sweep_string_iterator())}" if override.is_sweep_override() else override.input_line
        for override in parsed
        if script in ("train.py", "search.py", "find_lr.py") or not override.is_sweep_override()  # else commas stand between paths
    ]
    cfg = composed(first, config_name(script))
    if script == "train.py":
        check(OmegaConf.to_container(cfg, resolve=True))


def anchors(page) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text(page), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text(page), flags=re.S)):
        if re.match(r"[a-z]+:", target):
            continue  # not of this project
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}, which has {sorted(anchors(file))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_in_backticks_exist(page):
    """A path from a top-level folder on, or a bare name of a Python file, a page or a notebook, of which there must be one."""
    folders = "|".join(["src", "conf", "tests", "docs", "benchmarks", "notebooks", "hydra_plugins", r"\.ci"])
    names = {path.name for folder in ("src", "tests", "benchmarks", "hydra_plugins") for path in (ROOT / folder).rglob("*.py")}
    names |= {path.name for path in ROOT.glob("*.py")}
    for quoted in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text(page), flags=re.S)):
        if any(name in quoted for name in NEW):
            continue
        if re.fullmatch(rf"(?:{folders})(?:/[\w./*-]*)?", quoted):
            found = list(ROOT.glob(quoted.rstrip("/"))) if "*" in quoted else [ROOT / quoted]
            assert found and found[0].exists(), f"{page.name} names {quoted}"
        elif re.fullmatch(r"\w+\.py", quoted):
            assert quoted in names, f"{page.name} names {quoted}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_named_in_backticks_exist(page):
    known = {
        name for path in (ROOT / "tests").glob("*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }
    known |= {path.stem for path in (ROOT / "tests").glob("*.py")}
    for name in re.findall(r"`(test_\w+_\w+_\w+)`", text(page)):
        assert name in known, f"{page.name} names {name}"


@pytest.mark.parametrize(
    ("typed", "answer"), [("model=si", "model=simple_v3"), ("optimizer.l", "optimizer.lr="), ("data=di", "data=digits")]
)
def test_tab_completion_answers(typed, answer):
    line = f"python train.py {typed}"
    result = run_script("train.py", "-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert answer in result.stdout.split(), result.stderr


def test_every_long_file_is_defended():
    """docs/house.md says why a file is longer than 200 lines, and how large the whole is."""
    house = text(ROOT / "docs" / "house.md")
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): text(path).count("\n") for path in files}
    assert sorted(re.findall(r"^\| `(src/[\w/]+\.py)` \|", house, re.M)) == sorted(name for name, count in lines.items() if count > 200)
    total, number = re.search(r"([\d,]+) lines of Python .*, in (\d+) files", house).groups()
    assert int(number) == len(files) and abs(int(total.replace(",", "")) - sum(lines.values())) <= 100
