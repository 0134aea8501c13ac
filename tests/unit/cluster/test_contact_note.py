"""The note of the last contact outlives the controller, not the boot."""

from pathlib import Path

from futago.cluster.contact import ContactNote
from futago.cluster.model import At

S = 1_000_000_000


def test_first_controller_of_a_boot_finds_no_note(tmp_path: Path) -> None:
    assert ContactNote(tmp_path / "note", started_at=At(5 * S)).before is None


def test_next_controller_finds_the_last_contact_and_hands_it_on_without_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "note"
    ContactNote(path, started_at=At(5 * S)).keep(At(9 * S))
    second = ContactNote(path, started_at=At(10 * S))
    assert second.before == 9 * S
    second.keep(At(0))
    assert ContactNote(path, started_at=At(11 * S)).before == 9 * S


def test_controller_that_never_had_contact_leaves_its_own_start(tmp_path: Path) -> None:
    path = tmp_path / "note"
    ContactNote(path, started_at=At(5 * S)).keep(At(0))
    assert ContactNote(path, started_at=At(6 * S)).before == 5 * S


def test_damaged_note_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_bytes(b"x" * 12)
    assert ContactNote(path, started_at=At(S)).before == 0
    path.write_bytes(b"")
    assert ContactNote(path, started_at=At(S)).before == 0


def test_unwritable_place_stops_nothing(tmp_path: Path) -> None:
    ContactNote(tmp_path / "missing" / "note", started_at=At(S)).keep(At(2 * S))
