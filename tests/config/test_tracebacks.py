"""Tracebacks of user code: what is shown and what is folded."""

import pytest

from src.config.tracebacks import MAX_LINES, format_error, is_library, is_machinery, own_frames


def error_of(code: str, filename: str, **names: object) -> Exception:
    """The exception that some code raises, as if it stood in a file."""
    try:
        exec(compile(code, filename, "exec"), names)
    except Exception as error:
        error.__traceback__ = error.__traceback__.tb_next
        return error
    raise AssertionError("the code raises nothing")


@pytest.fixture
def network(tmp_path):
    """The path of a user's file that calls torch with two tensors that do not fit."""
    path = tmp_path / "my_net.py"
    path.write_text(
        "import torch\n\n\ndef forward():\n    torch.nn.Linear(3, 2)(torch.zeros(1, 4))\n"
    )
    return path


def test_frames_of_libraries_are_folded(network):
    code = network.read_text() + "\n\nforward()\n"
    error = error_of(code, str(network))
    lines = format_error(error, "runs/x/train.log").splitlines()
    assert "HYDRA_FULL_ERROR=1" in lines[-1] and "runs/x/train.log" in lines[-1]
    assert f'  File "{network}", line 5, in forward' in lines
    assert "    torch.nn.Linear(3, 2)(torch.zeros(1, 4))" in lines
    assert any("frames in torch" in line for line in lines)
    assert lines[-2].startswith("RuntimeError: ") and len(lines) <= MAX_LINES
    assert any(own_frames(error))


def test_frames_of_the_core_are_folded_and_a_cause_is_shown():
    from src.config import settings

    code = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error"
    error = error_of(code, "/somewhere/else.py")
    text = format_error(error)
    assert "ZeroDivisionError" in text and "\nKeyError: 'x'\n" in text
    error = error_of("check({})", "/somewhere/else.py", check=settings.check_settings)
    assert "settings.py" in format_error(error)  # the last frame of the project is always shown


def test_errors_of_libraries_alone_are_shown_whole():
    error = error_of("loads('{')", "/x/site-packages/y.py", loads=__import__("json").loads)
    text = format_error(error)
    assert "folded" not in text and "decoder.py" in text and not any(own_frames(error))


def test_a_long_message_is_cut():
    error = error_of("raise ValueError('\\n'.join('line %d' % i for i in range(99)))", "/x.py")
    lines = format_error(error).splitlines()
    assert len(lines) <= MAX_LINES and lines[-2] == "line 98" and "ValueError: line 0" in lines


def test_a_syntax_error_shows_its_place():
    try:
        compile("x = (", "/somewhere/broken.py", "exec")
    except SyntaxError as error:
        text = format_error(error)
    assert "broken.py" in text and "SyntaxError" in text


def test_what_belongs_to_whom():
    import torch

    import src.callbacks.step_seed
    import src.config.cli
    import src.models.lenet

    assert is_library(torch.__file__) and is_library(__import__("json").__file__)
    assert is_machinery(src.config.cli.__file__) and is_machinery(src.callbacks.step_seed.__file__)
    assert not is_machinery(src.models.lenet.__file__) and not is_library(__file__)
