"""Pages that lead from the first to the last command, run as a reader would."""

import re
import shlex

import pytest
from helpers import ROOT, run_script


def run_commands(page: str, cwd) -> list[str]:
    """Run the shell blocks of a page in a folder, one after the other; returns their outputs."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()
    outputs = []
    for line in lines:
        program, script, *arguments = shlex.split(line)
        assert program == "python"
        result = (
            run_script(script, *arguments, "trainer.accelerator=cpu", cwd=cwd)
            if (script == "train.py")
            else run_script(script, *arguments, cwd=cwd)
        )
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
        outputs.append(result.stdout)
    return outputs


@pytest.mark.slow
def test_from_two_ideas_to_a_sentence(tmp_path):
    first, grown, compared = run_commands("docs/research.md", tmp_path)
    assert "6 jobs: 6 completed" in first and "4 of 10 jobs are new" in grown
    assert "(paired t-test, n = 5 seeds)" in compared
    assert (tmp_path / "runs" / "comparison" / "comparison.html").is_file()
