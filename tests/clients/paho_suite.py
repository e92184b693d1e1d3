"""Runs the MQTT 5.0 tests that the source package of paho-mqtt carries (`tests/test_mqttv5.py`, which began as the
Eclipse Paho interoperability suite) against a broker that runs already, in place of the one that they look for.

usage: paho_suite.py DIRECTORY PORT [unittest's options]      DIRECTORY: the unpacked source package
"""
import os
import sys
import types
import unittest

directory, port = os.path.abspath(sys.argv[1]), int(sys.argv[2])


class Running:
    """What they ask of the broker that they mean to have started: its port, and to stop."""

    class socket:
        @staticmethod
        def getsockname():
            return "127.0.0.1", port

    @staticmethod
    def shutdown():
        pass


brokers = types.ModuleType("mqtt.brokers")
brokers.run = lambda config: None
brokers.listeners = types.SimpleNamespace(TCPListeners=types.SimpleNamespace(server=Running))
package = types.ModuleType("mqtt")
package.brokers = brokers
sys.modules |= {"mqtt": package, "mqtt.brokers": brokers}

sys.path.insert(0, directory)
unittest.main(module="tests.test_mqttv5", argv=[sys.argv[0], *sys.argv[3:]], buffer=True, verbosity=2)
