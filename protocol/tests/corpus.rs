//! Replays the fuzzers' corpus, and thousands of mutations of its seeds that are the same every time. What fuzzers found
//! beside the seeds (`found-…`) reaches further than they do; what once crashed is there under the name of what it was.
//!
//! UPDATE_CORPUS=1 writes the seeds anew.

use std::path::PathBuf;

use metaq_protocol::batch::{BatchBuilder, Compression};
use metaq_protocol::messages::{
    ApiVersionsRequest, FetchRequest, JoinGroupRequest, MetadataRequest, ProduceRequest,
};
use metaq_protocol::{compression, frame, fuzz_entry};

const MUTATIONS: u64 = 3000;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

fn batch(codec: Compression) -> Vec<u8> {
    let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
    let builder = BatchBuilder::new().producer(7, 1, 3).compression(codec);
    builder
        .push(Some(b"k"), Some(b"value"), headers, 1000)
        .push(None, None, &[], 1001)
        .finish()
        .unwrap()
        .to_vec()
}

/// What Kafka's classes wrote of our own messages in their newest versions, with key and version before it.
fn golden(direction: &str) -> impl Iterator<Item = Vec<u8>> {
    let lines = include_str!("golden.txt").lines();
    let of_it = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    let of_it: Vec<_> = of_it.filter(|words| words[1] == direction).collect();
    let newest = of_it.chunk_by(|one, other| one[0] == other[0]);
    let seed = |of_api: &[Vec<&str>]| {
        let words = &of_api[of_api.len() - 1];
        let number = |word: &str| word.parse::<i16>().unwrap().to_be_bytes();
        let byte = |at: usize| u8::from_str_radix(&words[3][at..at + 2], 16).unwrap();
        let body = (0..words[3].len()).step_by(2).map(byte);
        let head = [number(words[0]), number(words[2])].concat();
        head.into_iter().chain(body).collect()
    };
    newest.map(seed).collect::<Vec<Vec<u8>>>().into_iter()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let request = |bytes: bytes::Bytes| bytes[4..].to_vec();
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    match target {
        "request_frame" => vec![
            request(frame::encode_request(4, 1, "c", &ApiVersionsRequest::default()).unwrap()),
            request(frame::encode_request(12, 1, "c", &MetadataRequest::default()).unwrap()),
            request(frame::encode_request(9, 1, "c", &ProduceRequest::default()).unwrap()),
            request(frame::encode_request(13, 1, "c", &FetchRequest::default()).unwrap()),
            request(frame::encode_request(9, 1, "c", &JoinGroupRequest::default()).unwrap()),
            vec![0, 3, 0, 1, 0, 0, 0, 1, 255, 255, 0x7f, 255, 255, 255, 0, 0],
        ],
        "request" => golden("request").collect(),
        "response" => [
            vec![0, 18, 0, 0, 0, 0, 0, 0, 0, 0],
            vec![0, 12, 0, 4, 0, 0, 0, 0, 0, 0, 0],
        ]
        .into_iter()
        .chain(golden("response"))
        .collect(),
        "batches" => codecs.into_iter().map(batch).collect(),
        "records" => vec![batch(Compression::None)],
        _ => codecs
            .into_iter()
            .enumerate()
            .map(|(n, codec)| {
                let mut seed = vec![n as u8];
                seed.extend_from_slice(&compression::compress(codec, &[7; 300]).unwrap());
                seed
            })
            .collect(),
    }
}

fn replay(target: &str, run: fn(&[u8])) {
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        std::fs::create_dir_all(folder(target)).unwrap();
        for (n, seed) in seeds(target).iter().enumerate() {
            std::fs::write(folder(target).join(format!("seed-{n}")), seed).unwrap();
        }
    }
    let mut corpus: Vec<PathBuf> = std::fs::read_dir(folder(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "no corpus for {target}");
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for path in corpus {
        let seed = std::fs::read(&path).unwrap();
        run(&seed);
        for cut in 0..seed.len() {
            run(&seed[..cut]);
        }
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("found-")) {
            continue;
        }
        for _ in 0..MUTATIONS {
            let mut mutated = seed.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % mutated.len();
                match random() % 4 {
                    0 => mutated[at] = random() as u8,
                    1 => mutated[at] ^= 1 << (random() % 8),
                    2 => mutated[at] = [0, 0x7f, 0x80, 0xff][random() as usize % 4],
                    _ => mutated.insert(at, random() as u8),
                }
            }
            run(&mutated);
        }
    }
}

#[test]
fn request_frames() {
    replay("request_frame", fuzz_entry::request_frame);
}

#[test]
fn requests() {
    replay("request", fuzz_entry::request);
}

#[test]
fn responses() {
    replay("response", fuzz_entry::response);
}

#[test]
fn batches() {
    replay("batches", fuzz_entry::batches);
}

#[test]
fn records() {
    replay("records", fuzz_entry::records);
}

#[test]
fn decompression() {
    replay("decompress", fuzz_entry::decompress);
}
