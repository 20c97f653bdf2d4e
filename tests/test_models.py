"""The values that calls return."""

from __future__ import annotations

import copy
import logging
import pickle
import uuid

import attrs
import pytest

from podero_async import HiddenReason, SessionOutcome, User, VehicleRef
from podero_async._decode import decode_page
from tests._support.clients import page_body, wire_row


def test_known_outcomes_are_named_members() -> None:
    """A known text gives the named member, which equals the text."""
    assert SessionOutcome("optimized") is SessionOutcome.OPTIMIZED
    assert SessionOutcome.OPTIMIZED == "optimized"


@pytest.mark.parametrize("enum", [SessionOutcome, HiddenReason])
def test_an_unknown_text_becomes_an_unnamed_member(enum: type[SessionOutcome]) -> None:
    """An unnamed member keeps its text, equals members of the same text, and is not listed by the enum."""
    member = enum("solar_only")
    assert isinstance(member, enum)
    assert member.value == "solar_only"
    assert member.name is None
    assert member == enum("solar_only")
    assert hash(member) == hash(enum("solar_only"))
    assert member not in list(enum)
    assert member != enum("other_thing")
    assert repr(member) == f"<{enum.__name__}: 'solar_only'>"


def test_an_unnamed_member_survives_pickling_and_copying() -> None:
    """Pickled and deep copies of an unnamed member equal it."""
    member = SessionOutcome("solar_only")
    assert pickle.loads(pickle.dumps(member)) == member
    assert copy.deepcopy(member) == member


def test_an_unknown_text_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown text is logged at its first occurrence in a process; a text that is not a plain word is masked."""
    monkeypatch.setattr("podero_async._enums._logged_texts", set())  # other tests may have filled it
    caplog.set_level(logging.INFO)
    for text in ("seen_here_only", "seen_here_only", "Jane Doe, Main Street"):
        SessionOutcome(text)
    assert [record.getMessage() for record in caplog.records] == [
        f"unknown SessionOutcome {shown!r}: the API has more values than this release"
        for shown in ("seen_here_only", "***")
    ]


def test_a_number_is_no_outcome() -> None:
    """A value that is not a text is a `ValueError`, not an unnamed member."""
    with pytest.raises(ValueError, match="5"):
        SessionOutcome(5)  # type: ignore[arg-type]


def test_models_are_frozen_slotted_and_keyword_only() -> None:
    """A model has no settable attribute, no `__dict__` and no positional argument."""
    session = decode_page(page_body(wire_row())).items[0]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        session.is_hidden = True  # type: ignore[misc]
    assert not hasattr(session, "__dict__")
    with pytest.raises(TypeError):
        VehicleRef(uuid.UUID(int=1), uuid.UUID(int=2))  # type: ignore[call-arg]


def test_sessions_pickle_and_compare_by_value() -> None:
    """An unpickled session equals the original."""
    session = decode_page(page_body(wire_row())).items[0]
    assert pickle.loads(pickle.dumps(session)) == session


def test_a_vehicle_ref_takes_ids_as_text() -> None:
    """A uuid and its text give equal references, and anything else is a `ValueError` that names the id."""
    ref = VehicleRef(user_id=str(uuid.UUID(int=1)), vehicle_id=uuid.UUID(int=2))
    assert ref == VehicleRef(user_id=uuid.UUID(int=1), vehicle_id=uuid.UUID(int=2))
    with pytest.raises(ValueError, match="user_id must be a uuid"):
        VehicleRef(user_id="user-1", vehicle_id=uuid.UUID(int=2))
    with pytest.raises(ValueError, match="vehicle_id must be a uuid"):
        VehicleRef(user_id=uuid.UUID(int=1), vehicle_id=1)  # type: ignore[arg-type]


def test_personal_fields_are_left_out_of_the_repr() -> None:
    """A logged user shows no name, no address and no external id."""
    user = User(id=uuid.UUID(int=1), email="user-1@example.com", first_name="Ada", external_user_id="customer-7")
    assert not [text for text in ("example.com", "Ada", "customer-7") if text in repr(user)]
