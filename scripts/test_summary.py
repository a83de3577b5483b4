"""Counts the tests of a folder of JUnit reports and names every skipped one."""

import sys
from pathlib import Path
from xml.etree import ElementTree


def main(folder: Path) -> int:
    passed = failed = 0
    skipped: list[str] = []
    for report in sorted(folder.rglob("*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            skip = case.find("skipped")
            if skip is not None:
                name = f"{case.get('classname')}::{case.get('name')}"
                skipped.append(f"{name}: {skip.get('message', '')}")
            elif case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            else:
                passed += 1
    for line in skipped:
        print("skipped", line)
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
