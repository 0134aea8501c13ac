"""Options of the simulation: the larger runs are asked for by name."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sim-seeds", type=int, default=60, help="how many schedules test_simulator runs")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: a larger run; only with -m slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in (config.getoption("-m") or ""):
        return
    skip = pytest.mark.skip(reason="a larger run; pytest -m slow tests/sim")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
