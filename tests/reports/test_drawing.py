# SPDX-License-Identifier: Apache-2.0
"""What the page's pictures show."""

import numpy as np
import pytest

from src.evaluation.calibration import BINS, Calibration
from src.reports import drawing


def test_each_bar_stands_in_the_interval_of_its_images(monkeypatch):
    """Of images at the lower end of theirs, which a mean in floating point may fall below."""
    calibration = Calibration()
    calibration.update(np.arange(BINS) / BINS, np.ones(BINS, bool))
    calibration.update(np.full(6, 0.6), np.ones(6, bool))
    drawn = []
    monkeypatch.setattr(drawing, "as_svg", lambda figure, name: drawn.append(figure))
    drawing.calibration_svg(calibration, "calibration")
    bars = drawn[0].axes[1].patches
    centres = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    heights = [bar.get_height() for bar in bars]
    there = np.flatnonzero(calibration.images)
    assert centres == pytest.approx(100 * (there + 0.5) / BINS)
    assert heights == pytest.approx(100 * calibration.images[there] / calibration.images.sum())
