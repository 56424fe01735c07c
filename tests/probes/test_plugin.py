"""What plugins print, whole and broken; every example of the first half was printed by a real one."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.messages import Measure
from hbagent.probes.outcome import TEXT_LENGTH_MAX
from hbagent.probes.plugin import (
    LABEL_LENGTH_MAX,
    MEASURES_MAX,
    RANGE_LENGTH_MAX,
    UNIT_LENGTH_MAX,
    Said,
    breaches,
    is_range,
    parse,
)


def only(output: str) -> Measure:
    """The only measure of an output in which nothing is skipped."""
    said = parse(output)
    assert said.skipped == 0
    (measure,) = said.measures
    return measure


# ---- what real plugins print ---------------------------------------------------------------------------------


def test_text_and_performance_data_are_told_apart() -> None:
    said = parse(
        "LOAD OK - total load average: 0.88, 0.89, 0.49|load1=0.880;5.000;10.000;0; load5=0.890;4.000;6.000;0; \n"
    )
    assert said.text == "LOAD OK - total load average: 0.88, 0.89, 0.49"
    assert said.measures == (
        Measure(label="load1", value=0.88, warning="5.000", critical="10.000", least=0.0),
        Measure(label="load5", value=0.89, warning="4.000", critical="6.000", least=0.0),
    )
    assert (said.details, said.skipped) == ((), 0)


def test_a_label_may_be_a_path_and_follow_a_blank() -> None:
    output = "DISK OK - free space: / 78797MiB (75%);| /=26318209024B;243497277849;257024904396;0;270552530944\n"
    assert only(output) == Measure(
        label="/",
        value=26318209024.0,
        unit="B",
        warning="243497277849",
        critical="257024904396",
        least=0.0,
        most=270552530944.0,
    )


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("connect to address 127.0.0.1 and port 9: Connection refused\n", "Connection refused"),
        ("Usage:\n check_swap [-av] -w <percent_free>%\n  -w <bytes_free>|-c\n", "Usage:"),
    ],
)
def test_a_plugin_may_print_no_performance_data(output: str, text: str) -> None:
    said = parse(output)
    assert said.text.endswith(text)
    assert said.measures == ()


def test_units_stay_as_they_are() -> None:
    said = parse(
        "OK|rta=0.006ms;200.000;500.000;0; pl=0%;40;80;; size=453B;;;0 swap=0B;0;0;0;0 n=3c t=0.001us d=2.5days c=21C"
    )
    assert [(measure.label, measure.value, measure.unit) for measure in said.measures] == [
        ("rta", 0.006, "ms"),
        ("pl", 0.0, "%"),
        ("size", 453.0, "B"),
        ("swap", 0.0, "B"),
        ("n", 3.0, "c"),
        ("t", 0.001, "us"),
        ("d", 2.5, "days"),
        ("c", 21.0, "C"),
    ]


def test_data_may_begin_after_an_error_on_the_first_line() -> None:
    said = parse(
        "connect to address 127.0.0.1 and port 25: Connection refused\n"
        "SMTP CRITICAL - 0.000 sec. response time|time=0.000108s;;;0.000000\n"
    )
    assert said.text == "connect to address 127.0.0.1 and port 25: Connection refused"
    assert said.details == ("SMTP CRITICAL - 0.000 sec. response time",)
    assert said.measures == (Measure(label="time", value=0.000108, unit="s", least=0.0),)


# ---- the grammar ---------------------------------------------------------------------------------------------


def test_long_text_and_data_over_several_lines() -> None:
    said = parse(
        "DISK OK | /=2643MB;5948;5958;0;5968\n/ is fine\n/boot too | /boot=68MB;88;93;0;98\n/home=69357MB\n\n/v=3"
    )
    assert said.text == "DISK OK"
    assert said.details == ("/ is fine", "/boot too")
    assert [measure.label for measure in said.measures] == ["/", "/boot", "/home", "/v"]
    assert said.skipped == 0


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("time", "time"),
        ("'time'", "time"),
        ("'free space'", "free space"),
        ("'it''s'", "it's"),
        ("'a=b'", "a=b"),
        ("'C:\\ %'", "C:\\ %"),
        ("''''", "'"),
        ("größe", "größe"),
        ("a'b", "a'b"),
        ("/var/lib::inodes", "/var/lib::inodes"),
    ],
)
def test_labels(label: str, name: str) -> None:
    assert only(f"OK | {label}=1").label == name


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1", 1.0, ""),
        ("-1.5", -1.5, ""),
        ("+2", 2.0, ""),
        (".5s", 0.5, "s"),
        ("5.", 5.0, ""),
        ("1e3", 1000.0, ""),
        ("1.5E-3s", 0.0015, "s"),
        ("3E", 3.0, "E"),
        ("12GB", 12.0, "GB"),
        ("7µs", 7.0, "µs"),
        ("1/s", 1.0, "/s"),
        ("U", None, ""),
    ],
)
def test_values(text: str, value: float | None, unit: str) -> None:
    assert only(f"OK | a={text}") == Measure(label="a", value=value, unit=unit)


@pytest.mark.parametrize(
    "text", ["", ";1;2", "nan", "inf", "1e999", "1,5", "1.2.3", "1-2", "abc", "Unknown", "0x10", "1:2", "--1", "=1"]
)
def test_what_is_no_value_is_skipped_and_counted(text: str) -> None:
    said = parse(f"OK | before=1 a={text} after=2")
    assert [measure.label for measure in said.measures] == ["before", "after"]
    assert said.skipped == 1


@pytest.mark.parametrize("item", ["word", "=1", "'a", "'a'1", "''=1", "'a' =1", "a'", "|", ";;;"])
def test_what_is_no_item_is_skipped_and_the_others_are_read(item: str) -> None:
    said = parse(f"OK | before=1 {item} after=2")
    assert [measure.label for measure in said.measures][:1] == ["before"]
    assert said.measures[-1].label == "after"
    assert said.skipped >= 1


@pytest.mark.parametrize("limits", ["10", "10:", "~:10", "10:20", "@10:20", "-5:5", "@0.5:1e3", "0:0"])
def test_ranges_stay_as_they_were_written(limits: str) -> None:
    measure = only(f"OK | a=1;{limits};{limits}")
    assert (measure.warning, measure.critical) == (limits, limits)


def test_parts_at_the_end_may_be_missing_and_what_is_none_is_left_out() -> None:
    assert only("OK|a=1;2") == Measure(label="a", value=1.0, warning="2")
    assert only("OK|a=1;;3") == Measure(label="a", value=1.0, critical="3")
    assert only("OK|a=1;;;;") == Measure(label="a", value=1.0)
    assert only("OK|a=1;x;20:10;y;z;more;still") == Measure(label="a", value=1.0)


def test_thresholds_and_bounds_may_repeat_the_unit() -> None:
    expected = Measure(label="a", value=1.0, unit="MB", warning="80:90", critical="@95", least=0.0, most=100.0)
    assert only("OK|a=1MB;80MB:90MB;@95MB;0MB;100MB") == expected


def test_lines_may_end_as_on_other_systems() -> None:
    assert parse("OK | a=1\r\nlong\r\nmore | b=2\r\n") == parse("OK | a=1\nlong\nmore | b=2\n")


@pytest.mark.parametrize("output", ["", "\n", " \n\n", "|", "|||", "\0"])
def test_nothing_said_is_nothing_read(output: str) -> None:
    said = parse(output)
    assert (said.text, said.measures) == ("", ())


def test_empty_lines_before_the_first_are_passed_over() -> None:
    assert parse("\n\nOK - fine | a=1").text == "OK - fine"


# ---- what may not get through --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07red",
        "\x1b]8;;http://x\x1b\\red\x1b]8;;\x1b\\",
        "\x1b(Bred",
        "\x1bcred",
        "\x9b2Jred",
        "\x1bP1$r\x1b\\red",
        "\x1b[38;5;196mred\x1b[K",
        "red\x1b]0;without an end",
        "\u202ered",
        "red\x07\x00\x08",
        "\u2028red\u2029",
    ],
)
def test_nothing_that_moves_a_cursor_gets_through(text: str) -> None:
    said = parse(f"{text}\n{text}\nmore | a=1")
    assert said.text == "red"
    assert said.details == ("red", "more")
    assert said.measures == (Measure(label="a", value=1.0),)
    assert all(measure.label == "red" for measure in parse(f"OK|{text}=1").measures)


def test_everything_has_its_bound() -> None:
    said = parse("x" * 8000 + " | " + " ".join(f"{'l' * 300}{n}=1;{'9' * 100}" for n in range(MEASURES_MAX + 5)))
    assert len(said.text) == TEXT_LENGTH_MAX
    assert (len(said.measures), said.skipped) == (MEASURES_MAX, 5)
    assert all(len(measure.label) == LABEL_LENGTH_MAX and measure.warning == "" for measure in said.measures)
    assert parse("OK | a=1" + "u" * (UNIT_LENGTH_MAX + 1)).skipped == 1


PIECES = st.sampled_from(
    [
        "|",
        "=",
        "'",
        "''",
        ";",
        " ",
        "\n",
        "\r",
        ":",
        "@",
        "~",
        "U",
        "1",
        "-",
        ".",
        "e",
        "9" * 400,
        "a",
        "%",
        "\x1b[",
        "ü",
    ]
)


@given(
    st.one_of(
        st.text(), st.lists(PIECES, max_size=200).map("".join), st.binary().map(lambda b: b.decode(errors="replace"))
    )
)
def test_whatever_is_printed_is_read_without_an_exception(output: str) -> None:
    said = parse(output)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=Said) == said
    assert len(said.measures) <= MEASURES_MAX
    for text in (said.text, *said.details, *(measure.label for measure in said.measures)):
        assert text.isprintable()
    for measure in said.measures:
        assert 0 < len(measure.label) <= LABEL_LENGTH_MAX
        for limits in (measure.warning, measure.critical):
            assert len(limits) <= RANGE_LENGTH_MAX
            assert isinstance(breaches(limits, measure.value or 0.0), bool)


LABELS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40).map(
    lambda text: " ".join(text.split())
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(
        st.tuples(
            LABELS.filter(bool), st.none() | NUMBERS, st.sampled_from(["", "s", "%", "MB", "c"]), NUMBERS, NUMBERS
        ),
        max_size=20,
    )
)
def test_what_is_written_by_the_rules_is_read_back(rows: list[tuple[str, float | None, str, float, float]]) -> None:
    items = []
    for label, value, unit, least, most in rows:
        quoted = label.replace("'", "''")
        number = "U" if value is None else f"{value!r}{unit}"
        items.append(f"'{quoted}'={number};10;@1:2;{least!r};{most!r}")
    said = parse("OK | " + " ".join(items))
    assert said.skipped == 0
    assert list(said.measures) == [
        Measure(
            label=label,
            value=value,
            unit="" if value is None else unit,
            warning="10",
            critical="@1:2",
            least=least,
            most=most,
        )
        for label, value, unit, least, most in rows
    ]


@pytest.mark.parametrize(
    "piece", ["'", "''", "'a ", "'' '", "'''x ", "a=", "=", "|", "\x1b]", "1;", "a'", "\n|", "9", "@:"]
)
def test_no_output_takes_long_to_read(piece: str) -> None:
    output = "OK | " + piece * (8192 // len(piece))
    took = []
    # One of them may have the collector's work to do.
    for _ in range(3):
        begun = time.thread_time()
        parse(output)
        took.append(time.thread_time() - begun)
    assert min(took) < 0.5


# ---- ranges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ("10", [0, 5, 10], [-0.1, 10.1]),
        ("10:", [10, 1e9], [9.9, -1]),
        ("~:10", [-1e9, 10], [10.1]),
        ("10:20", [10, 15, 20], [9.9, 20.1]),
        ("@10:20", [9.9, 20.1], [10, 15, 20]),
        ("@10", [-1, 11], [0, 10]),
        (":10", [0, 10], [-1, 11]),
        ("-5:-1", [-5, -1], [-6, 0]),
        ("0", [0], [-1, 1]),
        ("~:", [-1e300, 1e300], []),
        ("@~:0", [0.1], [0, -5]),
        ("", [0, 1e9, -1e9], []),
    ],
)
def test_a_value_is_alerted_of_as_the_guidelines_say(limits: str, good: list[float], bad: list[float]) -> None:
    assert [breaches(limits, value) for value in good] == [False] * len(good)
    assert [breaches(limits, value) for value in bad] == [True] * len(bad)


@pytest.mark.parametrize(
    "limits", ["x", "@", "20:10", "10:x", "1:2:3", "~", "~10", "10%", " 10", "-1", "@20:10", "9" * 65]
)
def test_what_is_no_range_is_refused(limits: str) -> None:
    assert not is_range(limits)
    with pytest.raises(ValueError, match="is not a range"):
        breaches(limits, 1.0)
