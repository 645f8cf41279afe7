"""Tables in Markdown, and the parts of a page that sessions write."""

import pytest

from analytic.io.markdown import cell, marks, replaced, table


def test_columns_between_left_and_right_are_aligned_to_the_right() -> None:
    rows = [("a", "1", "x")]
    assert (
        table(("name", "number", "word"), rows, left=1) == "| name | number | word |\n| --- | ---: | ---: |\n| a | 1 | x |"
    )
    assert table(("name", "number", "word"), rows, left=1, right_to=2).splitlines()[1] == "| --- | ---: | --- |"
    assert table(("name",), [], left=1) == "| name |\n| --- |"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b", "a \\| b"),
        ("two\nlines\tand <tags>", "two lines and &lt;tags>"),
        ("aten._mm *", "aten.\\_mm \\*"),
        ("`aten._mm | *`", "`aten._mm \\| *`"),
        ("**bold**", "**bold**"),
    ],
)
def test_a_cell_is_one_line_that_ends_at_no_bar_of_its_own(text: str, shown: str) -> None:
    assert cell(text) == shown


def test_a_session_writes_between_its_own_markers() -> None:
    one, two = marks("one"), marks("two")
    page = f"# Page\n{one[0]}\nold\n{one[1]}\n{two[0]}\nkept\n{two[1]}\nend\n"
    now = replaced(page, "one", "new")
    assert now == f"# Page\n{one[0]}\n\nnew\n\n{one[1]}\n{two[0]}\nkept\n{two[1]}\nend\n"
    assert replaced(now, "one", "new") == now
    with pytest.raises(ValueError, match="--output: got a page without the lines <!-- written by the session three: begin"):
        replaced(page, "three", "new", option="--output")
