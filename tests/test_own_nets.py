"""The page on own nets does what it says, run as its reader would."""

import re

import matplotlib.image
import numpy as np
import pandas as pd
from running import ROOT

from convergent.running import stores


def test_the_code_compares_two_nets(tmp_path, monkeypatch):
    page = (ROOT / "docs/own_nets.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    small = code.replace("randn(64, 3, 224, 224)", "randn(24, 3, 64, 64)")
    assert small != code
    monkeypatch.chdir(tmp_path)
    exec(small, {})
    table = pd.read_csv("matching.csv")
    assert table["layer"].nunique() == 5
    layer = table["layer"].iloc[0]
    x, y = (
        stores.open_store(f"activations/{net}.zarr")[layer][...].astype(np.float64)
        for net in ("net1", "net2")
    )
    units = x.shape[-1]
    expected = np.corrcoef(x.reshape(-1, units).T, y.reshape(-1, units).T)[:units, units:]
    rows = table.query("layer == @layer and method == 'semi' and direction == 'ab'")
    np.testing.assert_array_equal(rows["partner"], expected.argmax(axis=1))
    np.testing.assert_allclose(rows["value"], expected.max(axis=1), atol=1e-5)
    assert matplotlib.image.imread("fig3.png").std() > 0.05
