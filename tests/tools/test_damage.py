"""Damaged files of every kind are refused; a codec or a check that lets them through is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from damage import KINDS, Counts, damage_files, valid_files

from permgraph.ir import check_spec, codec, files

SMALL = ("hubert_layer", "grouped_conv", "tied_autoencoder")
COUNT = 300


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return valid_files(tmp_path_factory.mktemp("valid"), SMALL)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_refused(kind: str, valid: dict[str, list[Path]], tmp_path: Path) -> None:
    found = damage_files(tmp_path, kind, valid[kind], COUNT, 1, sealed=False)
    assert not found.uncaught and not found.accepted
    assert found.refused > 0.9 * COUNT


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", KINDS)
def test_sealed_damage_is_refused_or_says_where(
    kind: str, valid: dict[str, list[Path]], tmp_path: Path
) -> None:
    found = damage_files(tmp_path, kind, valid[kind], COUNT, 2, sealed=True)
    assert not found.uncaught
    assert found.refused > 0.6 * COUNT


def again(valid: dict[str, list[Path]], folder: Path, sealed: bool) -> Counts:
    return damage_files(folder, "plan", valid["plan"], COUNT, 3, sealed)


def test_a_file_without_a_digest_would_be_noticed(
    valid: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Everything(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    monkeypatch.setattr(files, "digest_of", lambda data: Everything("x"))
    assert again(valid, tmp_path, sealed=False).accepted


def test_a_codec_that_does_not_check_numbers_would_be_noticed(
    valid: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_read_int", lambda data: data)
    monkeypatch.setattr(codec, "_read_ints", lambda data: tuple(data))
    codec._reader.cache_clear()
    try:
        assert again(valid, tmp_path, sealed=True).uncaught
    finally:
        monkeypatch.undo()
        codec._reader.cache_clear()


def test_a_spec_that_is_not_checked_would_be_noticed(
    valid: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sum(again(valid, tmp_path, sealed=True).accepted.values())
    monkeypatch.setattr(check_spec, "_check_place", lambda spec, place: None)
    assert sum(again(valid, tmp_path, sealed=True).accepted.values()) > before
