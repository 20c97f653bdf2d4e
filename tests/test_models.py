"""The values that callers hold."""

from __future__ import annotations

import copy
import pickle
import uuid

import attrs
import pytest

from podero_async import ChargingSession, HiddenReason, SessionOutcome, User, VehicleRef
from podero_async._decode import decode_page
from tests._support.clients import page_body, wire_row


def test_known_outcomes_are_named_members() -> None:
    """A caller's `match` on an outcome would miss it."""
    assert SessionOutcome("optimized") is SessionOutcome.OPTIMIZED
    assert len(SessionOutcome) == 18
    assert SessionOutcome.OPTIMIZED == "optimized"


@pytest.mark.parametrize("enum", [SessionOutcome, HiddenReason])
def test_an_unknown_text_becomes_an_unnamed_member(enum: type[SessionOutcome]) -> None:
    """A new outcome of the server would break every released client."""
    member = enum("solar_only")
    assert isinstance(member, enum)
    assert member.value == "solar_only"
    assert repr(member.name) == "None"
    assert member == enum("solar_only")
    assert hash(member) == hash(enum("solar_only"))
    assert member not in list(enum)
    assert member != enum("other_thing")
    assert repr(member) == f"<{enum.__name__}: 'solar_only'>"


def test_an_unnamed_member_survives_pickling_and_copying() -> None:
    """A session could not travel to a worker process."""
    member = SessionOutcome("solar_only")
    assert pickle.loads(pickle.dumps(member)) == member
    assert copy.deepcopy(member) == member


def test_what_is_no_text_is_no_outcome() -> None:
    """A number would pass for an outcome."""
    with pytest.raises(ValueError, match="5"):
        SessionOutcome(5)  # type: ignore[arg-type]


def test_models_are_frozen_slotted_and_keyword_only() -> None:
    """A value that is shared between tasks could change under one of them."""
    session = decode_page(page_body(wire_row())).items[0]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        session.is_hidden = True  # type: ignore[misc]
    assert not hasattr(session, "__dict__")
    with pytest.raises(TypeError):
        VehicleRef(uuid.UUID(int=1), uuid.UUID(int=2))  # type: ignore[call-arg]


def test_sessions_pickle_and_compare_by_value() -> None:
    """Sessions could not be cached or sent between processes."""
    session = decode_page(page_body(wire_row())).items[0]
    assert pickle.loads(pickle.dumps(session)) == session
    assert len(attrs.fields(ChargingSession)) == 22


def test_a_vehicle_ref_takes_ids_as_text() -> None:
    """Callers read ids from files and environments, as text."""
    ref = VehicleRef(user_id=str(uuid.UUID(int=1)), vehicle_id=uuid.UUID(int=2))
    assert ref == VehicleRef(user_id=uuid.UUID(int=1), vehicle_id=uuid.UUID(int=2))
    with pytest.raises(ValueError, match="badly formed"):
        VehicleRef(user_id="nobody", vehicle_id=uuid.UUID(int=2))


def test_personal_fields_do_not_show() -> None:
    """A logged user would put an address into a log file."""
    user = User(id=uuid.UUID(int=1), email="user-1@example.com", first_name="Ada", external_user_id="customer-7")
    assert "example.com" not in repr(user)
    assert "Ada" not in repr(user)
    assert "customer-7" not in repr(user)
