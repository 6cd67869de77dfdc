//! The floors that the comparison is held against, one thread a connection:
//!
//! `floor receive DIR`: takes the frames that a producer sends, computes CRC-32C, writes each to a file with one call
//! and answers 64 bytes. `floor sendfile FILE`: answers each frame with the file's next MiB by sendfile.
//! Prints the port that it listens on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

const ANSWER_BYTES: usize = 64;
const STEP_BYTES: usize = 1 << 20;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let [_, mode, path] = &words[..] else {
        return Err(io::Error::other("receive DIR, or sendfile FILE"));
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    std::thread::scope(|scope| {
        for (n, stream) in listener.incoming().enumerate() {
            let stream = stream?;
            scope.spawn(move || match mode.as_str() {
                "receive" => receive(stream, &Path::new(path).join(n.to_string())),
                _ => send(stream, Path::new(path)),
            });
        }
        Ok(())
    })
}

fn next_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    frame.resize(u32::from_be_bytes(length) as usize, 0);
    stream.read_exact(frame)
}

fn receive(mut stream: TcpStream, path: &Path) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut file, mut frame) = (File::create(path)?, Vec::new());
    let mut answer = [0; ANSWER_BYTES];
    answer[..4].copy_from_slice(&(ANSWER_BYTES as u32 - 4).to_be_bytes());
    loop {
        next_frame(&mut stream, &mut frame)?;
        answer[4..8].copy_from_slice(&crc32c::crc32c(&frame).to_be_bytes());
        file.write_all(&frame)?;
        stream.write_all(&answer)?;
    }
}

fn send(mut stream: TcpStream, path: &Path) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (file, mut frame, mut position) = (File::open(path)?, Vec::new(), 0);
    let end = file.metadata()?.len();
    loop {
        next_frame(&mut stream, &mut frame)?;
        if position + STEP_BYTES as u64 > end {
            position = 0;
        }
        stream.write_all(&(STEP_BYTES as u32).to_be_bytes())?;
        let mut left = STEP_BYTES;
        while left > 0 {
            left -= rustix::fs::sendfile(&stream, &file, Some(&mut position), left)?;
        }
    }
}
