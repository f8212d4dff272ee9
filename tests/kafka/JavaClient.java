// The Java client, step by step: `java -cp 'broker/*' JavaClient.java PROXY DIRECT`. PROXY is where the
// sidecar listens, DIRECT the broker itself, for what an administrator does behind its back.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

public class JavaClient {
    static String proxy;
    static Admin direct;

    interface Step { Object run() throws Exception; }

    static void step(String what, Step step) {
        long began = System.nanoTime();
        String told;
        try {
            told = String.valueOf(step.run());
        } catch (Throwable error) {
            while (error.getCause() != null && !(error instanceof org.apache.kafka.common.errors.ApiException)) error = error.getCause();
            told = error.getClass().getSimpleName();
        }
        System.out.println(what + ": " + told);
        System.err.println(what + " took " + (System.nanoTime() - began) / 1_000_000 + " ms");
    }

    static KafkaProducer<String, String> producer(Object... settings) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", proxy, "max.block.ms", 20000,
                "delivery.timeout.ms", 20000, "request.timeout.ms", 10000));
        for (int i = 0; i < settings.length; i += 2) config.put((String) settings[i], settings[i + 1]);
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    static Map<String, Object> consuming(String group, Object... settings) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", proxy, "auto.offset.reset", "earliest"));
        if (group != null) config.put("group.id", group);
        for (int i = 0; i < settings.length; i += 2) config.put((String) settings[i], settings[i + 1]);
        return config;
    }

    static KafkaConsumer<String, String> consumer(String group, Object... settings) {
        return new KafkaConsumer<>(consuming(group, settings), new StringDeserializer(), new StringDeserializer());
    }

    static String send(KafkaProducer<String, String> producer, String topic, int records) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int n = 0; n < records; n++) sent.add(producer.send(new ProducerRecord<>(topic, "key" + n % 10, "value " + n)));
        producer.flush();
        for (Future<RecordMetadata> future : sent) future.get(20, TimeUnit.SECONDS);
        return "ok";
    }

    static int poll(KafkaConsumer<String, String> consumer, int wanted) {
        int got = 0;
        long until = System.nanoTime() + 20_000_000_000L;
        while (got < wanted && System.nanoTime() < until) got += consumer.poll(Duration.ofMillis(200)).count();
        return got;
    }

    static void create(String topic, int partitions) throws Exception {
        try {
            direct.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        } catch (ExecutionException error) {
            if (!(error.getCause() instanceof org.apache.kafka.common.errors.TopicExistsException)) throw error;
        }
    }

    public static void main(String[] arguments) throws Exception {
        proxy = arguments[0];
        direct = Admin.create(Map.of("bootstrap.servers", arguments[1]));
        for (String topic : List.of("java", "java-secret", "java-readonly", "java-writeonly", "java-compact", "java-again", "java-shared"))
            create(topic, 2);
        direct.incrementalAlterConfigs(Map.of(
                new ConfigResource(ConfigResource.Type.TOPIC, "java-compact"),
                List.of(new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.SET)),
                new ConfigResource(ConfigResource.Type.GROUP, "java-share"),
                List.of(new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET)))).all().get();
        producing();
        consuming();
        transactions();
        administration();
        topicsComeAndGo();
        manyTopics();
        System.exit(0);
    }

    static void producing() {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd"))
            step("produce " + codec, () -> {
                try (var producer = producer("compression.type", codec, "linger.ms", 5)) { return send(producer, "java", 100); }
            });
        step("large record", () -> {
            try (var producer = producer("max.request.size", 3_000_000)) {
                return producer.send(new ProducerRecord<>("java-compact", "k", "x".repeat(900_000))).get().topic();
            }
        });
        step("compacted", () -> { try (var producer = producer()) { return send(producer, "java-compact", 50); } });
        try (var producer = producer()) {
            step("produce secret", () -> send(producer, "java-secret", 1));
            step("produce read-only", () -> send(producer, "java-readonly", 1));
            step("goes on after a denial", () -> send(producer, "java-writeonly", 10));
        }
        step("acks=0", () -> { try (var producer = producer("acks", "0", "enable.idempotence", false)) { return send(producer, "java-writeonly", 10); } });
    }

    static void consuming() {
        step("classic group", () -> {
            try (var consumer = consumer("java-classic")) {
                consumer.subscribe(List.of("java"));
                int got = poll(consumer, 500);
                consumer.commitSync();
                return got;
            }
        });
        step("new group (KIP-848)", () -> {
            try (var consumer = consumer("java-new", "group.protocol", "consumer")) {
                consumer.subscribe(List.of("java"));
                int got = poll(consumer, 500);
                consumer.commitSync();
                return got + " committed " + consumer.committed(consumer.assignment()).values().stream().mapToLong(OffsetAndMetadata::offset).sum();
            }
        });
        step("a pattern sees what is allowed", () -> {
            try (var consumer = consumer("java-pattern")) {
                consumer.subscribe(java.util.regex.Pattern.compile("java|java-compact|java-secret"));
                poll(consumer, 500);
                return new TreeSet<>(consumer.subscription());
            }
        });
        step("a pattern for the broker is refused", () -> {
            try (var consumer = consumer("java-broker-pattern", "group.protocol", "consumer")) {
                consumer.subscribe(new SubscriptionPattern("java.*"));
                return poll(consumer, 1);
            }
        });
        step("list of topics", () -> {
            try (var consumer = consumer("java-list")) { return new TreeSet<>(consumer.listTopics().keySet().stream().filter(t -> t.startsWith("java")).toList()); }
        });
        for (String protocol : List.of("classic", "consumer"))
            step("consume secret, " + protocol, () -> {
                try (var consumer = consumer("java-denied-" + protocol, "group.protocol", protocol)) {
                    consumer.subscribe(List.of("java-secret"));
                    return poll(consumer, 1);
                }
            });
        step("consume write-only", () -> {
            try (var consumer = consumer(null)) {
                consumer.assign(List.of(new TopicPartition("java", 0), new TopicPartition("java-writeonly", 0)));
                consumer.seekToBeginning(consumer.assignment());
                return poll(consumer, 10_000);
            }
        });
        step("rebalance", () -> {
            try (var one = consumer("java-rebalance"); var two = consumer("java-rebalance")) {
                one.subscribe(List.of("java"));
                poll(one, 500);
                two.subscribe(List.of("java"));
                long until = System.nanoTime() + 30_000_000_000L;
                while ((one.assignment().size() != 1 || two.assignment().size() != 1) && System.nanoTime() < until) {
                    one.poll(Duration.ofMillis(100));
                    two.poll(Duration.ofMillis(100));
                }
                return one.assignment().size() + " and " + two.assignment().size();
            }
        });
        step("share group (KIP-932)", () -> {
            try (var producer = producer()) { send(producer, "java-shared", 20); }
            try (var consumer = new KafkaShareConsumer<>(consuming("java-share", "auto.offset.reset", null).entrySet().stream()
                    .filter(e -> e.getValue() != null).collect(Collectors.toMap(Map.Entry::getKey, Map.Entry::getValue)),
                    new StringDeserializer(), new StringDeserializer())) {
                consumer.subscribe(List.of("java-shared"));
                int got = 0;
                long until = System.nanoTime() + 20_000_000_000L;
                while (got < 20 && System.nanoTime() < until) got += consumer.poll(Duration.ofMillis(200)).count();
                consumer.commitSync();
                return got;
            }
        });
        step("share secret", () -> {
            try (var consumer = new KafkaShareConsumer<>(Map.<String, Object>of("bootstrap.servers", proxy, "group.id", "java-share-secret"),
                    new StringDeserializer(), new StringDeserializer())) {
                consumer.subscribe(List.of("java-secret"));
                for (int n = 0; n < 25; n++) consumer.poll(Duration.ofMillis(200));
                return "nothing said";
            }
        });
    }

    static void transactions() {
        step("transactions", () -> {
            try (var producer = producer("transactional.id", "java"); var consumer = consumer("java-eos", "isolation.level", "read_committed")) {
                consumer.assign(List.of(new TopicPartition("java", 0), new TopicPartition("java", 1)));
                consumer.seekToEnd(consumer.assignment());
                consumer.assignment().forEach(consumer::position);
                producer.initTransactions();
                producer.beginTransaction();
                for (int n = 0; n < 10; n++) producer.send(new ProducerRecord<>("java", "k" + n, "aborted"));
                producer.flush();
                producer.abortTransaction();
                producer.beginTransaction();
                for (int n = 0; n < 10; n++) producer.send(new ProducerRecord<>("java", "k" + n, "committed"));
                producer.sendOffsetsToTransaction(Map.of(new TopicPartition("java", 0), new OffsetAndMetadata(7)), consumer.groupMetadata());
                producer.commitTransaction();
                Set<String> seen = new TreeSet<>();
                int got = 0;
                long until = System.nanoTime() + 20_000_000_000L;
                while (got < 10 && System.nanoTime() < until)
                    for (var record : consumer.poll(Duration.ofMillis(200))) { got++; seen.add(record.value()); }
                return got + " " + seen + " offset " + consumer.committed(Set.of(new TopicPartition("java", 0))).get(new TopicPartition("java", 0)).offset();
            }
        });
        try (var producer = producer("transactional.id", "java-denied")) {
            producer.initTransactions();
            step("transaction with a denied topic", () -> {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("java", "k", "v"));
                producer.send(new ProducerRecord<>("java-readonly", "k", "v")).get();
                producer.commitTransaction();
                return "committed";
            });
            step("aborts", () -> { producer.abortTransaction(); return "ok"; });
            step("goes on", () -> {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>("java", "k", "v"));
                producer.commitTransaction();
                return "ok";
            });
        }
    }

    static void administration() {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", proxy, "default.api.timeout.ms", 15000, "request.timeout.ms", 10000))) {
            step("admin lists topics", () -> new TreeSet<>(admin.listTopics().names().get().stream().filter(t -> t.startsWith("java")).toList()));
            step("admin describes", () -> admin.describeTopics(List.of("java")).allTopicNames().get().get("java").partitions().size());
            step("admin describes secret", () -> admin.describeTopics(List.of("java-secret")).allTopicNames().get());
            step("admin creates what it may", () -> { admin.createTopics(List.of(new NewTopic("java-made", 1, (short) 1))).all().get(); return "ok"; });
            var two = admin.createTopics(List.of(new NewTopic("java-made", 1, (short) 1), new NewTopic("java-forbidden", 1, (short) 1))).values();
            step("admin creates two, the one that may be", () -> two.get("java-made").get());
            step("admin creates two, the one that may not", () -> two.get("java-forbidden").get());
            step("admin deletes", () -> admin.deleteTopics(List.of("java")).all().get());
            step("admin deletes records", () -> admin.deleteRecords(Map.of(new TopicPartition("java", 0), RecordsToDelete.beforeOffset(1))).all().get());
            step("admin lists groups", () -> admin.listGroups().all().get().size());
            step("admin describes a group", () -> admin.describeConsumerGroups(List.of("java-classic")).all().get());
            step("admin asks for ACLs", () -> admin.describeAcls(org.apache.kafka.common.acl.AclBindingFilter.ANY).values().get());
            step("admin describes a configuration", () -> admin.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.TOPIC, "java"))).all().get());
            step("admin describes the cluster", () -> admin.describeCluster().nodes().get().size());
            step("admin asks for offsets", () -> admin.listConsumerGroupOffsets("java-classic").partitionsToOffsetAndMetadata().get().size());
            step("admin asks for ends", () -> admin.listOffsets(Map.of(new TopicPartition("java", 0), OffsetSpec.earliest())).all().get().size());
        }
        step("nothing was created that may not be", () -> {
            try (var producer = producer("max.block.ms", 5000)) { send(producer, "java-forbidden", 1); } catch (Exception ignored) { }
            return direct.listTopics().names().get().contains("java-forbidden");
        });
    }

    static void topicsComeAndGo() {
        try (var producer = producer("max.block.ms", 30000, "metadata.max.age.ms", 1000); var consumer = consumer("java-later", "metadata.max.age.ms", 500)) {
            step("topic created while connected", () -> {
                consumer.subscribe(List.of("java-later"));
                consumer.poll(Duration.ofMillis(500));
                create("java-later", 1);
                send(producer, "java-later", 5);
                return poll(consumer, 5);
            });
            step("topic deleted and made again", () -> {
                consumer.unsubscribe();
                consumer.assign(List.of(new TopicPartition("java-again", 0)));
                consumer.seekToBeginning(consumer.assignment());
                producer.send(new ProducerRecord<>("java-again", 0, "k", "old")).get();
                int old = poll(consumer, 1);
                Uuid before = direct.describeTopics(List.of("java-again")).allTopicNames().get().get("java-again").topicId();
                direct.deleteTopics(List.of("java-again")).all().get();
                Thread.sleep(1000);
                create("java-again", 2);
                boolean other = !before.equals(direct.describeTopics(List.of("java-again")).allTopicNames().get().get("java-again").topicId());
                consumer.seekToBeginning(consumer.assignment());
                long until = System.nanoTime() + 30_000_000_000L;
                String told = "not sent";
                while (!told.equals("sent") && System.nanoTime() < until) {
                    try { producer.send(new ProducerRecord<>("java-again", 0, "k", "new")).get(); told = "sent"; } catch (ExecutionException retry) { Thread.sleep(200); }
                }
                Set<String> seen = new TreeSet<>();
                while (!seen.contains("new") && System.nanoTime() < until)
                    for (var record : consumer.poll(Duration.ofMillis(200))) seen.add(record.value());
                return old + " old, another id " + other + ", " + told + ", seen " + seen.contains("new");
            });
        }
    }

    static void manyTopics() {
        step("1,000 topics", () -> {
            List<String> topics = IntStream.range(0, 1000).mapToObj(n -> String.format("many-%04d", n)).toList();
            direct.createTopics(topics.stream().map(topic -> new NewTopic(topic, 1, (short) 1)).toList()).all().get(120, TimeUnit.SECONDS);
            try (var producer = producer("linger.ms", 200, "max.block.ms", 60000, "delivery.timeout.ms", 60000); var consumer = consumer(null)) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (String topic : topics) sent.add(producer.send(new ProducerRecord<>(topic, "v")));
                producer.flush();
                for (Future<RecordMetadata> future : sent) future.get();
                consumer.assign(topics.stream().map(topic -> new TopicPartition(topic, 0)).toList());
                consumer.seekToBeginning(consumer.assignment());
                return poll(consumer, 1000);
            }
        });
    }
}
