"""Numbers on logarithmic axes."""

import matplotlib
import pytest

from vae_rd.figures import rd_axes, style


@pytest.mark.parametrize("low, high, names", [
    (20, 200, ["20", "50", "100", "200"]), (5, 700, ["5", "10", "20", "50", "100", "200", "500"]),
    (5, 300_000, ["10", "100", "1,000", "10,000", "100,000"])])
def test_the_numbers_of_a_logarithmic_axis_do_not_overlap(low, high, names):
    with matplotlib.rc_context(style.STYLE):
        figure = style.figure(style.TEXT_WIDTH, 2)
        axes, _ = figure.subplots(1, 2)
        rd_axes.make_logarithmic(axes)
        axes.set_xlim(low, high)
        figure.draw_without_rendering()
    texts = [tick.label1 for tick in axes.xaxis.get_major_ticks()
             if low <= tick.get_loc() <= high and tick.label1.get_text()]
    assert [text.get_text() for text in texts] == names
    boxes = [text.get_window_extent() for text in texts]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))
