"""What processes of a test say in their logs: a line of JSON now and then."""

import json


def last(process):
    """What it said last, in whole."""
    lines = process.log.read_text().rpartition("\n")[0].splitlines()
    found = [line for line in lines if line.startswith("{")]
    return json.loads(found[-1]) if found else {}
