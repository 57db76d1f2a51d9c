"""The bill of materials of an image: SPDX 2.3 as JSON, from what lies in its root file system.

Debian's packages come from dpkg's own status file, those inside of CRIU's bundle from the list that it carries, and the
crates in the program from Cargo.lock. Nothing in it depends on when or where it is made.
"""

import argparse
import json
import pathlib
import re
import tomllib
import urllib.parse


def debian(root):
    """(name, version, source) of each installed package."""
    for paragraph in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", paragraph, re.MULTILINE))
        if "installed" in fields.get("Status", "").split():
            yield fields["Package"], fields["Version"], fields["Architecture"]


def bundled(root):
    """The packages that CRIU's bundle was made of."""
    for line in (root / "opt/revenant/criu/versions.txt").read_text().splitlines():
        name, version = line.split()
        yield name, version


def crates(lock):
    for package in tomllib.loads(lock.read_text())["package"]:
        yield package["name"], package["version"]


def package(kind, name, version, purl):
    identifier = re.sub(r"[^A-Za-z0-9.-]", "-", f"SPDXRef-{kind}-{name}-{version}")
    return {
        "SPDXID": identifier,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    }


def bill(image, digest, root, lock):
    quote = urllib.parse.quote
    packages = [package("deb", name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={arch}") for name, version, arch in debian(root)]
    packages += [package("criu-bundle", name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}") for name, version in bundled(root)]
    packages += [package("crate", name, version, f"pkg:cargo/{quote(name)}@{quote(version)}") for name, version in crates(lock)]
    packages.sort(key=lambda entry: entry["SPDXID"])
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image,
        "documentNamespace": f"https://revenant.dev/sbom/{image}/{digest}",
        # The image's own date is fixed too, so that the same content gives the same bill.
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Tool: revenant-scripts-sbom"]},
        "packages": packages,
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": entry["SPDXID"]} for entry in packages
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--root", type=pathlib.Path, required=True, help="the image's root file system")
    parser.add_argument("--lock", type=pathlib.Path, default="Cargo.lock")
    options = parser.parse_args()
    print(json.dumps(bill(options.image, options.digest, options.root, options.lock), indent=1))


if __name__ == "__main__":
    main()
