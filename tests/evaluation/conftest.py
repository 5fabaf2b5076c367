# SPDX-License-Identifier: Apache-2.0
"""Pictures as the tests see them."""

import warnings

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn, as objects, besides their files."""
    drawn, save = [], Figure.savefig

    def keep(figure, *arguments, **options):
        drawn.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return drawn
