"""One MQTT session: the only owner of paho-mqtt."""
