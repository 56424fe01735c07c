"""What textual draws for the console: panes, bars and a dialog. They hold no state of the datacenter.

A pane draws line by line and only the lines that can be seen, which is why ten thousand hosts do not slow it down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, Static

from hbagent.cli.grid import Screen

from .lines import Spans, Target
from .panes import Listing

#: What each tone looks like; "chosen" comes on top.
_STYLES = {
    "bad": Style(color="red", bold=True),
    "warn": Style(color="yellow"),
    "unknown": Style(color="magenta"),
    "good": Style(color="green"),
    "away": Style(dim=True),
    "dim": Style(dim=True),
    "bold": Style(bold=True),
    "alarm": Style(reverse=True, bold=True),
}
#: The same where there are no colours.
_PLAIN_STYLES = {"bad": Style(bold=True), "alarm": _STYLES["alarm"], "bold": Style(bold=True), "dim": Style(dim=True)}
_OLD = Style(dim=True)


def style_of(tone: str, screen: Screen, old: bool, focused: bool) -> Style:
    """How a piece of a line looks. What is old is grey, whatever its tone."""
    base, _, chosen = tone.rpartition(" ") if tone.endswith("chosen") else (tone, "", "")
    style = (_STYLES if screen.colour else _PLAIN_STYLES).get(base, Style.null())
    if old and base != "alarm":
        style = _OLD
    if chosen:
        style += Style(reverse=True) if focused else Style(underline=True)
    return style


def strip_of(spans: Spans, width: int, screen: Screen, old: bool = False, focused: bool = False) -> Strip:
    """A line as textual wants it, exactly as wide as it may be."""
    segments = [Segment(text, style_of(tone, screen, old, focused)) for text, tone in spans if text]
    return Strip(segments).crop_extend(0, width, None)


class Pane(Widget, can_focus=True):
    """A list or text that can be moved in."""

    BINDINGS = [
        Binding(keys, action, show=False, priority=True)
        for keys, action in (
            ("up,k", "move(0,-1)"),
            ("down,j", "move(0,1)"),
            ("left,h", "move(-1,0)"),
            ("right,l", "move(1,0)"),
            ("pageup,ctrl+b", "leaf(-1)"),
            ("pagedown,ctrl+f,space", "leaf(1)"),
            ("home", "move(0,-1000000)"),
            ("end,G", "move(0,1000000)"),
            ("enter", "open"),
        )
    ]

    class Opened(Message):
        """Enter was pressed on something that leads on."""

        def __init__(self, target: Target) -> None:
            super().__init__()
            self.target = target

    class Moved(Message):
        """Another line is chosen."""

    def __init__(self, listing: Listing, screen: Screen, id: str) -> None:
        super().__init__(id=id)
        self.listing = listing
        self._screen = screen
        self._top = 0
        self.old = False

    def show(self, listing: Listing, old: bool) -> None:
        """Show another listing, or the same one changed."""
        if listing is not self.listing:
            self._top = 0
        self.listing, self.old = listing, old
        self.refresh()

    def render_lines(self, crop: object) -> list[Strip]:
        """Draw; the chosen line is brought into sight first."""
        self._scroll()
        return super().render_lines(crop)  # type: ignore[arg-type]

    def render_line(self, y: int) -> Strip:
        """One line of the pane: its title, then what the cursor is near to."""
        width = self.size.width
        if not y:
            title = [(text, f"{tone} chosen" if self.has_focus else tone) for text, tone in self.listing.title(width)]
            return strip_of(title, width, self._screen, self.old, True)  # type: ignore[arg-type]
        at = self._top + y - 1
        if at >= self.listing.count(width):
            return Strip.blank(width)
        return strip_of(self.listing.line(at, width), width, self._screen, self.old, self.has_focus)

    def _scroll(self) -> None:
        room = max(1, self.size.height - 1)
        width = self.size.width
        cursor = self.listing.cursor(width)
        self._top = min(max(self._top, cursor - room + 1), cursor)
        self._top = max(0, min(self._top, self.listing.count(width) - room))

    def action_move(self, across: int, down: int) -> None:
        """Choose another line or cell."""
        self.listing.move(across, down, self.size.width)
        self.refresh()
        self.post_message(self.Moved())

    def action_leaf(self, direction: int) -> None:
        """Choose a line a screen further."""
        self.action_move(0, direction * max(1, self.size.height - 2))

    def action_open(self) -> None:
        """Follow the chosen line."""
        target = self.listing.target()
        if target is not None:
            self.post_message(self.Opened(target))

    def on_mouse_scroll_down(self) -> None:
        """Three lines on."""
        self.action_move(0, 3)

    def on_mouse_scroll_up(self) -> None:
        """Three lines back."""
        self.action_move(0, -3)

    def on_click(self, event: events.Click) -> None:
        """Choose the line that was clicked; twice: open it."""
        if event.y and self._top + event.y <= self.listing.count(self.size.width):
            self.action_move(0, self._top + event.y - 1 - self.listing.cursor(self.size.width))
            if event.chain > 1:
                self.action_open()

    def on_focus(self) -> None:
        """Say what is chosen here."""
        self.refresh()
        self.post_message(self.Moved())

    def on_blur(self) -> None:
        """Draw the cursor as one that does not listen."""
        self.refresh()


class Bar(Widget):
    """One line of text."""

    def __init__(self, screen: Screen, id: str) -> None:
        super().__init__(id=id)
        self._screen = screen
        self._spans: Spans = []

    def say(self, spans: Spans) -> None:
        """Show another text."""
        if spans != self._spans:
            self._spans = spans
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The text, cut to the width."""
        return strip_of(self._spans, self.size.width, self._screen)


class Dialog(ModalScreen[list[str]]):
    """Asks for one or more texts; Enter goes on to the next and ends with the last, Esc gives up."""

    BINDINGS = [
        Binding("escape", "dismiss(None)", show=False, priority=True),
        # Obeyed at once, so that what is typed after it goes into the next text.
        Binding("enter", "next", show=False, priority=True),
    ]

    def __init__(
        self,
        title: str,
        fields: Sequence[tuple[str, str]],
        ascii: bool,
        wrong: Callable[[list[str]], str] = lambda values: "",
        changed: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(classes="ascii" if ascii else "")
        self._title = title
        self._fields = fields
        self._wrong = wrong
        self._changed = changed

    def compose(self) -> ComposeResult:
        """A title, a line for each text, and room for what is wrong with them."""
        with Vertical(id="dialog"):
            yield Static(self._title, markup=False, classes="title")
            for label, value in self._fields:
                yield Static(label, markup=False)
                # Its own suggestions, and selecting all of a text on focus, would only be in the way.
                yield Input(value, select_on_focus=False, compact=True)
            yield Static("", markup=False, id="wrong")
            yield Static("Enter: go on   Esc: leave it", markup=False, classes="hint")

    def on_mount(self) -> None:
        """Begin with the first text, at once."""
        self.set_focus(self.query(Input).first())

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what a text does while it is written."""
        if self._changed is not None:
            self._changed(event.value)

    def action_next(self) -> None:
        """On to the next text, or done."""
        inputs = list(self.query(Input))
        at = next((at for at, one in enumerate(inputs) if one is self.focused), len(inputs) - 1)
        if at + 1 < len(inputs):
            self.set_focus(inputs[at + 1])
        else:
            # After the letters that wait to be taken in.
            inputs[at].call_later(self._finish)

    def _finish(self) -> None:
        values = [one.value.strip() for one in self.query(Input)]
        wrong = self._wrong(values)
        if wrong:
            self.query_one("#wrong", Static).update(wrong)
        else:
            self.dismiss(values)
