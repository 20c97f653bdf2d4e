"""Files of vehicles, and shards of a fleet."""

from __future__ import annotations

import json
import uuid

import pytest

from podero_async.backfill import Shard, read_vehicle_refs
from podero_async.models import VehicleRef

ONE, TWO = (VehicleRef(user_id=uuid.UUID(int=n), vehicle_id=uuid.UUID(int=n + 10)) for n in (1, 2))


def csv(ref: VehicleRef) -> str:
    return f"{ref.user_id},{ref.vehicle_id}\n"


def jsonl(ref: VehicleRef) -> str:
    return json.dumps({"user_id": str(ref.user_id), "vehicle_id": str(ref.vehicle_id), "note": "x"})


@pytest.mark.parametrize(
    "lines",
    [
        [csv(ONE), csv(TWO)],
        ["user_id,vehicle_id\n", csv(ONE), "\n", csv(TWO)],
        ["\ufeffuser_id, vehicle_id\r\n", csv(ONE), csv(TWO)],
        ["\n", "USER_ID,VEHICLE_ID\n", csv(ONE), csv(TWO)],
        [
            "# my fleet\n",
            "vehicle_id, user_id\n",
            f"{ONE.vehicle_id},{ONE.user_id}",
            "#",
            f"{TWO.vehicle_id},{TWO.user_id}",
        ],
        [jsonl(ONE), "", jsonl(TWO)],
        [f'"{ONE.user_id}", "{ONE.vehicle_id}"', jsonl(TWO)],
    ],
)
def test_csv_and_json_lines_are_read(lines: list[str]) -> None:
    """Vehicle lists are read as CSV, with any header, comments and a BOM, as JSON lines, or mixed."""
    assert list(read_vehicle_refs(lines)) == [ONE, TWO]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("only-one-field", "line 3: expected user_id,vehicle_id"),
        (f"{ONE.user_id},nonsense", "line 3: vehicle_id must be a uuid"),
        ("{broken", "line 3: not a JSON object"),
        ('{"a":' * 100_000, "line 3: not a JSON object"),
        ('{"user_id": 5}', "line 3: expected an object with a user_id and a vehicle_id"),
        ("user_id,vehicle_id", "line 3: user_id must be a uuid"),
    ],
)
def test_an_invalid_line_is_named_by_its_number(line: str, message: str) -> None:
    """An invalid line raises a `ValueError` with its number and the mistake."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        list(read_vehicle_refs([csv(ONE), "", line]))


@pytest.mark.parametrize("text", ["5/4", "0/4", "1/0", "", "1", "a/b", "-1/4", "1/4/2", "1.5/4", "\u00b2/4"])
def test_an_invalid_shard_is_refused(text: str) -> None:
    """A shard is refused unless it is INDEX/COUNT with an index from 1 to the count."""
    with pytest.raises(ValueError, match="shard"):
        Shard.parse(text)


def test_shards_are_disjoint_complete_and_stable() -> None:
    """Each vehicle belongs to exactly one shard, which is the same in every release."""
    shards = [Shard.parse(f"{index}/3") for index in (1, 2, 3)]
    vehicles = [uuid.UUID(int=number) for number in range(300)]
    owners = [[shard.index for shard in shards if shard.holds(vehicle)] for vehicle in vehicles]
    assert all(len(owner) == 1 for owner in owners)
    assert [owner[0] for owner in owners[:12]] == STABLE
    assert all(owners.count([shard.index]) > 70 for shard in shards)
    assert str(shards[1]) == "2/3"


STABLE = [1, 1, 2, 2, 1, 3, 1, 3, 3, 3, 1, 2]
