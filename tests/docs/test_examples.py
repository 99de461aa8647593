"""The examples' own rules."""

from pathlib import Path

import pytest

from tests.docs.examples import Example, examples_of, matches, run

DOCUMENT = """# Title

```python
print(1)
```

```text
1
```

Words.

```console
$ not run
```

```sh
echo {}
```
"""


def test_what_an_example_is() -> None:
    assert examples_of(DOCUMENT) == [
        Example(3, "python", "print(1)\n", "1\n"),
        Example(17, "sh", "echo {}\n", None),
    ]


def test_what_is_printed_follows_its_example() -> None:
    with pytest.raises(ValueError, match="line 21: a block of json that follows no example"):
        examples_of(DOCUMENT + "Words.\n```json\n{}\n```\n")


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        ('{"a": 1}', '{\n  "a":1 }', True),
        ('{"a": ..., "b": 2}', '{"a": [1, 2], "b": 2}', True),
        ('{"a": ...}', '{"a": 1', False),
        ("a+", "aa", False),
    ],
)
def test_dots_are_anything(wanted: str, printed: str, same: bool) -> None:
    assert matches(wanted, printed) is same


@pytest.mark.parametrize(
    ("language", "code", "printed", "wrong"),
    [
        ("python", "print('A:1')", "B:2", None),
        ("python", "print(2)", "3", "printed\n2\n"),
        ("python", "1 / 0", None, "ZeroDivisionError"),
        ("sh", "echo A:1", "B:2", None),
        ("sh", "false | true", None, "exit 1"),
    ],
)
def test_running(language: str, code: str, printed: str | None, wrong: str | None, tmp_path: Path) -> None:
    found = run(Example(1, language, code, printed), {"A:1": "B:2"}, tmp_path)
    assert found is wrong is None or (found is not None and wrong is not None and wrong in found)
