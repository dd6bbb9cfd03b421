"""What docs/add-a-model.md tells people to do works, and what it names exists."""

from __future__ import annotations

import re

from rocmforge.models import families
from rocmforge.models.spec import DecoderSpec
from tests.support.model_specs import spec_of
from tests.support.source_tree import ROOT

GUIDE = (ROOT / "docs" / "add-a-model.md").read_text("utf-8")


def test_the_example_is_all_that_a_family_needs(monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    exec(code, vars(families) | {"_FAMILIES": families._FAMILIES})
    spec = spec_of("internlm2")
    assert (spec.architecture, spec.rope_kind) == ("internlm2", "norm")


def test_the_fields_exist():
    table = re.findall(r"^\| (`.*?) \|", GUIDE, re.M)
    fields = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    assert len(fields) == 6
    assert fields <= set(DecoderSpec.__dataclass_fields__)


def test_the_files_exist():
    paths = re.findall(r"`((?:rocmforge|tests|native)/[^`]*)`", GUIDE)
    assert len(paths) >= 10
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing
