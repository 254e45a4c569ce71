"""A sleeping device on MicroPython: MQTT 3.1.1, a persistent session, QoS 1, text in and text out.

device.py PORT CLIENT_ID MAILBOX talk    ask each line of the input and print its answer
device.py PORT CLIENT_ID MAILBOX ask     ask one line and go to sleep before the answer is there
device.py PORT CLIENT_ID MAILBOX fetch   wake up and print what came meanwhile
"""

import sys

from umqtt.simple import MQTTClient

port, client_id, mailbox, action = sys.argv[1:]
answers = []
device = MQTTClient(client_id, "127.0.0.1", int(port), keepalive=60)
device.set_callback(lambda _topic, message: answers.append(message.decode()))
kept_session = device.connect(clean_session=False)
if action != "fetch":
    device.subscribe(mailbox + "/reply", qos=1)
for line in sys.stdin:
    # Bytes: umqtt counts the characters of a string where the packet needs the bytes.
    device.publish(mailbox + "/request", line.strip().encode(), qos=1)
    while action == "talk" and not answers:
        device.wait_msg()
    if action == "talk":
        print(answers.pop(0))
if action == "fetch":
    print("session kept" if kept_session else "session lost")
    while not answers:
        device.wait_msg()
    print(answers[0])
device.disconnect()
