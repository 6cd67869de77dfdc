"""What suites of groups with confluent-kafka share: topics, records, settings of groups."""

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from harness import SETTINGS, equal, unique

admin = AdminClient(SETTINGS)


def create(topic, partitions):
    for future in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        future.result(30)


def produce(topic, values, partitions):
    """Numbers, one partition after the other."""
    failed = []
    client = Producer({**SETTINGS, "linger.ms": 5})
    for value in values:
        client.produce(topic, str(value), partition=value % partitions, on_delivery=lambda error, _: error and failed.append(error))
    client.flush(60)
    equal(failed, [])


def group_with(**settings):
    """A group that has these settings."""
    group = unique("group")
    resource = ConfigResource(ResourceType.GROUP, group)
    for name, value in settings.items():
        resource.add_incremental_config(ConfigEntry(name.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET))
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
    return group
