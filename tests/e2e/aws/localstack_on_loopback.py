"""Runs LocalStack on loopback alone.

Its server takes the port of `GATEWAY_LISTEN` and leaves the address out, so that it would listen on all interfaces:
here every IPv4 endpoint is given 127.0.0.1 before LocalStack makes its own. Whoever starts this looks where it listens.
"""

import functools

from twisted.internet import endpoints

endpoints.TCP4ServerEndpoint = functools.partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")

from localstack.runtime.main import main  # noqa: E402  (after the endpoint was replaced)

if __name__ == "__main__":
    main()
