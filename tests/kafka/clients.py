"""Clients in Python: librdkafka, aiokafka and kafka-python.

clients.py CLIENT BROKER ALLOWED SECRET
"""

import asyncio
import logging
import sys
import time

logging.disable(logging.CRITICAL)


def librdkafka(broker, allowed, secret):
    from confluent_kafka import Consumer, KafkaException, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    def produce(what, topics, **settings):
        told = {}
        producer = Producer({"bootstrap.servers": broker, "message.timeout.ms": 10000, **settings})
        for topic in topics:
            for n in range(50):
                try:
                    producer.produce(topic, str(n), on_delivery=lambda e, m: told.setdefault(m.topic(), e.name() if e else "ok"))
                except KafkaException as error:
                    told.setdefault(topic, error.args[0].name())
        left = producer.flush(15)
        print(what, *(told.get(topic) for topic in topics), "left", left)

    produce("produce:", [allowed, secret])
    produce("idempotent:", [allowed], **{"enable.idempotence": True, "compression.type": "lz4"})
    produce("acks=0:", [allowed], **{"acks": 0, "compression.type": "zstd"})

    def consume(what, topics, records, **settings):
        consumer = Consumer({"bootstrap.servers": broker, "auto.offset.reset": "earliest", **settings})
        consumer.subscribe(topics)
        got, errors, until = 0, set(), time.time() + 15
        while time.time() < until and (got < records or (secret in topics and not errors)):
            message = consumer.poll(0.2)
            if message is None:
                continue
            if message.error():
                errors.add((message.topic(), message.error().name()))
            else:
                got += 1
        if got:
            consumer.commit(asynchronous=False)
        consumer.close()
        print(what, got, sorted(errors))

    consume("classic group:", [allowed, secret], 150, **{"group.id": "rd-classic"})
    consume("new group:", [allowed], 150, **{"group.id": "rd-new", "group.protocol": "consumer"})
    # The rest of a group's life: a second run goes on where the first ended.
    produce("more:", [allowed])
    consume("goes on:", [allowed], 50, **{"group.id": "rd-classic"})

    producer = Producer({"bootstrap.servers": broker, "transactional.id": "rd"})
    producer.init_transactions(10)
    for what, topic in (("transaction:", allowed), ("denied transaction:", secret)):
        try:
            producer.begin_transaction()
            producer.produce(topic, "t")
            producer.commit_transaction(10)
            print(what, "ok")
        except KafkaException as error:
            # librdkafka's word for a transaction whose records were refused.
            print(what, error.args[0].name())
            producer.abort_transaction(10)
            print("aborted")

    admin = AdminClient({"bootstrap.servers": broker})
    topics = admin.list_topics(timeout=10).topics
    print("sees", allowed in topics, secret in topics)
    for topic, future in admin.create_topics([NewTopic(secret, 1, 1)]).items():
        try:
            future.result()
        except KafkaException as error:
            print("create:", error.args[0].name())


def restart(broker, allowed, _):
    """Produces and consumes for as long as lines come in, through whatever happens to the broker."""
    from confluent_kafka import Consumer, Producer

    producer = Producer({"bootstrap.servers": broker, "message.timeout.ms": 60000, "enable.idempotence": True, "log_level": 0})
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "restart", "auto.offset.reset": "earliest", "log_level": 0})
    consumer.subscribe([allowed])
    sent = acked = got = 0
    failed = []

    def delivered(error, _):
        nonlocal acked
        acked += 1
        if error:
            failed.append(error.name())

    for line in sys.stdin:
        goal = got + int(line)
        until = time.time() + 60
        while got < goal and time.time() < until:
            if sent < goal:
                producer.produce(allowed, str(sent), on_delivery=delivered)
                sent += 1
            producer.poll(0)
            message = consumer.poll(0.05)
            if message is not None and not message.error():
                got += 1
        producer.flush(30)
        print("sent", sent, "acked", acked, "got", got, "failed", failed, flush=True)
    consumer.close()


def groups(broker, allowed, other):
    """Policy knows the groups and the topics of a team by patterns."""
    from confluent_kafka import Consumer, KafkaException, Producer
    from confluent_kafka.admin import AdminClient

    told = {}
    producer = Producer({"bootstrap.servers": broker, "message.timeout.ms": 10000, "log_level": 0})
    for topic in (allowed, other):
        producer.produce(topic, "x", on_delivery=lambda e, m: told.setdefault(m.topic(), e.name() if e else "ok"))
    producer.flush(15)
    print("produce:", told[allowed], told[other])

    for group in ("team-a-one", "team-b-one"):
        consumer = Consumer({"bootstrap.servers": broker, "group.id": group, "auto.offset.reset": "earliest", "log_level": 0})
        consumer.subscribe([allowed])
        until = time.time() + 15
        while time.time() < until:
            message = consumer.poll(0.2)
            if message is not None:
                print(group, message.error().name() if message.error() else "got one")
                break
        try:
            consumer.commit(asynchronous=False)
        except KafkaException:
            pass
        consumer.close()

    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    print("sees:", [group.group_id for group in admin.list_consumer_groups().result().valid])
    for group, future in admin.describe_consumer_groups(["team-a-one", "team-b-one"]).items():
        try:
            print("describe:", group, future.result().group_id)
        except KafkaException as error:
            print("describe:", group, error.args[0].name())


def python_aiokafka(broker, allowed, secret):
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

    async def run():
        # Many topics in one request: long enough a pause before it for the client to gather them.
        producer = AIOKafkaProducer(bootstrap_servers=broker, linger_ms=300)
        await producer.start()
        topics = [allowed, allowed + "-readonly"]
        for topic in topics:
            await producer.partitions_for(topic)
        sends = [await producer.send(topic, b"x", partition=0) for _ in range(20) for topic in topics]
        told = {topic: set() for topic in topics}
        results = await asyncio.gather(*sends, return_exceptions=True)
        for topic, result in zip(topics * 20, results):
            told[topic].add(type(result).__name__)
        print("produce together:", *(sorted(told[topic]) for topic in topics))
        try:
            await producer.send_and_wait(secret, b"x")
        except Exception as error:
            print("produce secret:", type(error).__name__)
        await producer.stop()

        consumer = AIOKafkaConsumer(allowed, bootstrap_servers=broker, group_id="aio", auto_offset_reset="earliest")
        await consumer.start()
        got = 0
        while got < 20:
            got += sum(map(len, (await asyncio.wait_for(consumer.getmany(timeout_ms=500), 20)).values()))
        await consumer.commit()
        await consumer.stop()
        print("consumed:", got)

        consumer = AIOKafkaConsumer(bootstrap_servers=broker)
        try:
            await consumer.start()
            partitions = [TopicPartition(topic, 0) for topic in (allowed, allowed + "-writeonly")]
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek(partition, 0)
            for _ in range(10):
                await consumer.getmany(timeout_ms=500)
            print("consume write-only: nothing said")
        except Exception as error:
            print("consume write-only:", type(error).__name__)
        finally:
            await consumer.stop()

        admin = AIOKafkaAdminClient(bootstrap_servers=broker)
        await admin.start()
        topics = await admin.list_topics()
        print("sees", allowed in topics, secret in topics)
        await admin.close()

    asyncio.run(run())


def python_kafka(broker, allowed, secret):
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    # Idempotence takes one failed batch for the end of all; it is another test's.
    producer = KafkaProducer(bootstrap_servers=broker, linger_ms=300, enable_idempotence=False, retries=2)
    topics = [allowed, allowed + "-readonly", secret]
    for topic in topics[:2]:
        producer.partitions_for(topic)
    told = {}
    futures = []
    for topic in [allowed] * 20 + topics[1:]:
        try:
            futures.append((topic, producer.send(topic, b"x")))
        except Exception as error:
            told[topic] = type(error).__name__
    for topic, future in futures:
        try:
            future.get(timeout=15)
            told.setdefault(topic, "ok")
        except Exception as error:
            told[topic] = type(error).__name__
    print("produce:", *(told[topic] for topic in topics))
    producer.close()

    consumer = KafkaConsumer(allowed, bootstrap_servers=broker, group_id="kp", auto_offset_reset="earliest", consumer_timeout_ms=15000)
    got = 0
    for _ in consumer:
        got += 1
        if got == 20:
            break
    consumer.commit()
    print("consumed:", got, "sees", allowed in consumer.topics(), secret in consumer.topics())
    consumer.close()

    consumer = KafkaConsumer(bootstrap_servers=broker)
    try:
        consumer.assign([TopicPartition(allowed, 0), TopicPartition(allowed + "-writeonly", 0)])
        consumer.seek_to_beginning()
        for _ in range(20):
            consumer.poll(timeout_ms=500)
        print("consume write-only: nothing said")
    except Exception as error:
        print("consume write-only:", type(error).__name__)
    consumer.close(autocommit=False)


if __name__ == "__main__":
    run = {"librdkafka": librdkafka, "groups": groups, "restart": restart, "aiokafka": python_aiokafka, "kafka-python": python_kafka}
    run[sys.argv[1]](*sys.argv[2:])
