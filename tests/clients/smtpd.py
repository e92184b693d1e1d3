"""A mail server of aiosmtpd (PyPI) on a free port: says the port, then each message as a line of JSON.

smtpd.py [starttls|smtps CERTIFICATE KEY]: nothing is taken in clear then.
"""
import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP


class Handler:
    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        body = message.get_content()
        print(json.dumps({"to": envelope.rcpt_tos, "from": envelope.mail_from, "subject": message["subject"],
                          "text": body, "tls": session.ssl is not None or how == "smtps"}), flush=True)
        return "250 OK"


how, *files = sys.argv[1:] or ["clear"]
context = None
if files:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)


def protocol():
    tls = {"tls_context": context, "require_starttls": True} if how == "starttls" else {}
    return SMTP(Handler(), hostname="localhost", enable_SMTPUTF8=True, **tls)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context if how == "smtps" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


sys.exit(asyncio.run(main()))
