#!/usr/bin/env python3
"""A receiver that tells a Slack channel of each call that ended. Python 3.8 or later, nothing to install.

Slack's incoming webhooks take {"text":"…"} and no other body, so callhook cannot post to them itself; slack.md says
how to put this between the two. It checks callhook's secret, answers 2xx once Slack has the message, and tells an
event once, also if callhook sends it again.
"""
import hmac, json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SLACK, SECRET = os.environ.get("SLACK_WEBHOOK_URL"), os.environ.get("WEBHOOK_SECRET")
told, turn = {}, threading.Lock()  # ids of events that Slack has, oldest first; one message at a time


def text_of(event):
    seconds, reason = event["payload"].get("duration_ms", 0) // 1000, event["payload"].get("reason")
    how = f": {reason} after {seconds // 60}:{seconds % 60:02}" if reason else ""  # with CALL_ENDED_DETAILS
    return f"Call {event['uuid']} ended{how}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def tell(text):
    """Returns what callhook is answered: a status, and how long to wait."""
    try:
        body = json.dumps({"text": text}).encode()
        urlopen(Request(SLACK, body, {"Content-Type": "application/json"}), timeout=5).close()
        return 200, None
    except HTTPError as error:  # 400 is about this message, so it is final; anything else can be mended
        return {400: 422, 429: 429}.get(error.code, 502), error.headers.get("Retry-After")
    except OSError:
        return 502, None


class Receiver(BaseHTTPRequestHandler):
    timeout = 10  # for a sender that stops in the middle

    def do_POST(self):
        self.send(*self.take(self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 1 << 20))))

    def take(self, body):
        if not hmac.compare_digest(self.headers.get("X-AVR-WEBHOOK-SECRET", "").encode(), SECRET.encode()):
            return 401, None
        try:
            event, event_id = json.loads(body), self.headers.get_all("webhook-id", [])[0]
            if event["type"] != "call_ended":
                return 200, None
            text = text_of(event)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return 400, None  # no event
        with turn:
            if event_id in told:
                return 200, None
            status, wait = tell(text)
            if status == 200:
                told[event_id] = True
                if len(told) > 10_000:
                    del told[next(iter(told))]
            return status, wait

    def send(self, status, wait):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if wait:
            self.send_header("Retry-After", wait)
        self.end_headers()


if not SLACK or not SECRET:
    sys.exit("set SLACK_WEBHOOK_URL, and WEBHOOK_SECRET to what callhook has as RECEIVER_SLACK_SECRET")
server = ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9100"))), Receiver)
print(f"listening on port {server.server_port}", flush=True)
server.serve_forever()
