"""An SMTP server for tests: STARTTLS or TLS, a login, and every mail as one line of JSON on stdout.

Usage: smtp.py DIRECTORY. Writes the certificate to trust to DIRECTORY/ca.pem; the first line says the two ports.
"""

import email
import email.policy
import json
import ssl
import sys
import time

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

directory = sys.argv[1]
authority = trustme.CA()
authority.cert_pem.write_to_path(f"{directory}/ca.pem")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)


def say(value):
    print(json.dumps(value), flush=True)


class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        say({
            "tls": session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None,
            "login": getattr(session.auth_data, "login", b"").decode(),
            "to": envelope.rcpt_tos,
            "subject": mail["subject"],
            "id": mail["message-id"],
            "automatic": mail["auto-submitted"],
            "text": mail.get_body(("plain",)).get_content(),
            "html": mail.get_body(("html",)).get_content(),
        })
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    right = (data.login, data.password) == (b"ci", b"mail-s3cret")
    return AuthResult(success=right, handled=False, auth_data=data)


class Plain(Controller):
    def factory(self):
        return SMTP(self.handler, tls_context=context, require_starttls=True, auth_required=True,
                    authenticator=authenticate, hostname="localhost")


class Wrapped(Controller):
    def factory(self):
        return SMTP(self.handler, auth_required=True, auth_require_tls=False,
                    authenticator=authenticate, hostname="localhost")


def free():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


first, second = free(), free()
Plain(Handler(), hostname="127.0.0.1", port=first).start()
Wrapped(Handler(), hostname="127.0.0.1", port=second, ssl_context=context).start()
say({"starttls": first, "tls": second})
while True:
    time.sleep(3600)
