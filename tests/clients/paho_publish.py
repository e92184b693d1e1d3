"""Publishes one reading with paho-mqtt and waits until it is acknowledged."""
import json
import sys

import paho.mqtt.client as mqtt

host, port, version, qos, device, token, value, transport, ca = sys.argv[1:]
protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=device,
    protocol=protocol,
    transport="websockets" if transport in ("ws", "wss") else "tcp",
)
if transport in ("ws", "wss"):
    client.ws_set_options(path="/mqtt")
if transport in ("mqtts", "wss"):
    client.tls_set(ca_certs=ca)
client.username_pw_set(device, token)
client.connect(host, int(port))
client.loop_start()
info = client.publish(f"sensores/{device}/data", json.dumps({"temperatura": float(value)}), qos=int(qos))
info.wait_for_publish(timeout=20)
if not info.is_published():
    sys.exit("not acknowledged")
client.disconnect()
client.loop_stop()
