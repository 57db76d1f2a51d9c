"""A container registry that takes what is pushed and checks every digest: `registry.py DIRECTORY`, on port 80.

Of https://github.com/opencontainers/distribution-spec/blob/main/spec.md only the pushing. What a tag names is kept as DIRECTORY/TAG.
"""

import hashlib
import http.server
import json
import pathlib
import sys
import urllib.parse

kept = pathlib.Path(sys.argv[1])
blobs, uploads = {}, {}


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in {"Content_Length": 0, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self):
        self.answer(200 if self.path == "/v2/" else 404)

    def do_HEAD(self):
        blob = blobs.get(self.path.rsplit("/", 1)[1])
        self.answer(404) if blob is None else self.answer(200, Content_Length=len(blob))

    def do_POST(self):
        place = f"{urllib.parse.urlsplit(self.path).path}{len(uploads)}"
        uploads[place] = self.body()
        self.answer(202, Location=place)

    def do_PATCH(self):
        uploads[self.path] += self.body()
        self.answer(202, Location=self.path, Range=f"0-{len(uploads[self.path]) - 1}")

    def do_PUT(self):
        place, _, query = self.path.partition("?")
        data = uploads.get(place, b"") + self.body()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if place in uploads:
            named = urllib.parse.parse_qs(query)["digest"][0]
        else:
            manifest = json.loads(data)
            named = digest if all(part["digest"] in blobs for part in [manifest["config"], *manifest["layers"]]) else "incomplete"
            (kept / place.rsplit("/", 1)[1]).write_bytes(data)
        if named != digest:
            return self.answer(400)
        blobs[digest] = data
        return self.answer(201, Location=place, Docker_Content_Digest=digest)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 80), Registry)
(kept / "ready").touch()
server.serve_forever()
