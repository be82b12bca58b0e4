"""Where files that belong to the product but are no Python stand."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
INFRA = ROOT / "infra"
FUNCTIONS = ROOT / "functions"
