"""
The two services that C{twistd} finds.
"""

from twisted.application.service import ServiceMaker

relay = ServiceMaker(
    "relaytunnel relay",
    "relaytunnel.tap.relay",
    "The relay outside, which agents and clients dial.",
    "relay",
)

agent = ServiceMaker(
    "relaytunnel agent",
    "relaytunnel.tap.agent",
    "The agent inside, which publishes servers through a relay.",
    "agent",
)
