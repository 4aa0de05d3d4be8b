"""What makes a figure legible on a page, which the tests of figures share."""

import io
import itertools

from matplotlib.axes import Axes
from matplotlib.text import Text

import convergent.figures.style  # noqa: F401  (as every figure of a run has it)

# Inches of a page's text, points of its smallest text, and dots per inch in print.
WIDTH, HEIGHT, SMALLEST, DOTS = 6.5, 9.0, 7, 200


def shown_texts(figure):
    """List the texts that are drawn: those with letters, and of ticks only those on their axis."""
    hidden = set()
    for ax in figure.findobj(Axes):
        if not ax.get_visible():
            hidden |= set(ax.findobj(Text))
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-6 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not (ax.axison and low - slack <= tick.get_loc() <= high + slack):
                    hidden |= {tick.label1, tick.label2}
    texts = (text for text in figure.findobj(Text) if text.get_visible() and text not in hidden)
    return [text for text in texts if text.get_text().strip()]


def illegible(figure, height=HEIGHT):
    """List what keeps a figure from being read at the width of a page."""
    figure.savefig(io.BytesIO())  # lays it out
    wide, high = figure.get_size_inches()
    found = [f"{high} inches high"] if high > height + 1e-6 else []
    found += [f"{figure.dpi} dots per inch"] if figure.dpi < DOTS else []
    boxes = {text: text.get_window_extent() for text in shown_texts(figure)}
    for text, box in boxes.items():
        points = text.get_fontsize() * WIDTH / max(wide, WIDTH)
        found += [f"{points:.1f} points: {text}"] if points < SMALLEST - 1e-6 else []
        inside = min(box.x0, box.y0) >= -1
        inside &= box.x1 <= figure.bbox.width + 1
        inside &= box.y1 <= figure.bbox.height + 1
        found += [] if inside else [f"outside: {text}"]
    # The boxes of slanted texts overlap where the texts do not.
    upright = [text for text in boxes if text.get_rotation() % 90 == 0]
    for one, other in itertools.combinations(upright, 2):
        a, b = boxes[one], boxes[other]
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        found += [f"overlap: {one}, {other}"] if min(across, along) > 2 else []
    return found
