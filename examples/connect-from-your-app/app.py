"""A small web application whose users connect MCP servers through toolgate. Python's standard library only.

    TOOLGATE_URL=https://tools.example.com TOOLGATE_KEY=tgk_... python3 app.py 127.0.0.1 5000

Its project was made with `toolgate project create NAME --proof app --verifier-url http://127.0.0.1:5000/toolgate`.
"""

import html
import json
import os
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GATEWAY = os.environ["TOOLGATE_URL"]
KEY = os.environ["TOOLGATE_KEY"]
MODEL = os.environ.get("MODEL", "openai/gpt-5.4-mini")
SERVER = os.environ.get("MCP_SERVER", "https://files.example.com/mcp")

SESSIONS = {}  # session cookie -> user: stands for whatever login the application has


def gateway(path, body):
    """Asks toolgate with the application's key. Gives the status and the JSON."""
    request = urllib.request.Request(
        GATEWAY + path, json.dumps(body).encode(), {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as failure:
        return failure.code, json.load(failure)


class App(BaseHTTPRequestHandler):
    def do_GET(self):
        address = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        if address.path == "/":
            self.ask()
        elif address.path == "/login":
            self.page('<form method="post" action="/login">Name <input name="name"> <button>Sign in</button></form>')
        elif address.path == "/toolgate":
            self.verify(query.get("flow_ref", ""))
        else:
            self.page("There is no such page.", 404)

    def do_POST(self):
        length = min(int(self.headers.get("content-length", 0)), 10_000)
        form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
        if self.path != "/login":
            return self.page("There is no such page.", 404)
        # Nobody is signed in by another site: what they then connect would be whoever's that site signed them in as.
        if self.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return self.page("Please use the form here.", 403)
        session = secrets.token_urlsafe(32)
        SESSIONS[session] = form.get("name", "")
        self.go("/", f"session={session}; HttpOnly; SameSite=Lax; Path=/")

    def user(self):
        cookie = SimpleCookie(self.headers.get("cookie", "")).get("session")
        return SESSIONS.get(cookie.value) if cookie else None

    def ask(self):
        """Uses the server in the name of whoever is signed in. A missing login is an answer with a link."""
        user = self.user()
        if not user:
            return self.go("/login")
        status, answer = gateway("/v1/chat/completions", {
            "model": MODEL,
            "user": user,
            "tools": [{"type": "mcp", "server_label": "files", "server_url": SERVER}],
            "messages": [{"role": "user", "content": "Who am I there?"}],
        })
        if status != 200:
            return self.page(f"toolgate answered {status}.", 502)
        for missing in answer.get("toolgate", {}).get("authorization_required", []):
            if missing["connect_url"]:
                return self.page(f'<a href="{html.escape(missing["connect_url"])}">Connect your files</a>')
        self.page(html.escape(answer["choices"][0]["message"]["content"]))

    def verify(self, flow_ref):
        """toolgate sent this browser here to learn who sits at it: the one thing that only this application knows.

        The user is the one of this browser's own session, never one that the address names.
        """
        user = self.user()
        if not user:
            return self.page("Sign in here first, then use the link again.", 401)
        status, answer = gateway("/v1/flows/confirm", {"flow_ref": flow_ref, "user": user})
        if status == 409:
            return self.page("This link was made for somebody else.", 403)
        if status != 200:
            return self.page("This link does not work any more. Ask again.", 400)
        # For this browser only: the address proves its user, and is never logged or fetched here.
        self.go(answer["redirect_url"])

    def go(self, address, cookie=None):
        self.send_response(303)
        self.send_header("location", address)
        if cookie:
            self.send_header("set-cookie", cookie)
        self.send_header("content-length", "0")
        self.end_headers()

    def page(self, text, status=200):
        body = f"<!doctype html><title>Example</title><main>{text}</main>".encode()
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass  # addresses hold one-time references


if __name__ == "__main__":
    host, port = sys.argv[1], int(sys.argv[2])
    ThreadingHTTPServer((host, port), App).serve_forever()
