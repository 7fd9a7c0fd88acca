//! Frames. Input: codec (1 byte), plaintext length in blocks (1 byte), stored bytes. The hash is made right.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_format::*;
use tidemark_fuzz::bounded;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[codec, blocks], stored)) = bytes.split_first_chunk::<2>() else { return };
    let codec = if codec % 4 == 0 { FrameCodec::Raw } else { FrameCodec::Zstd };
    let plain_len = (u32::from(blocks % 128) + 1) * BLOCK_BYTES as u32;
    let entry = FrameEntry { stored_len: stored.len() as u32, plain_len, codec, hash: frame::frame_hash(stored) };
    let limit = stored.len() + FRAME_PLAIN_BYTES_MAX as usize;
    if let Ok(plain) = bounded(limit, || decode_frame(&entry, stored))
        && codec == FrameCodec::Zstd
    {
        assert_eq!(plain.len() as u32, plain_len, "a frame holds what its entry promises");
    }
    let plain: Vec<u8> = stored.iter().copied().cycle().take(plain_len as usize).collect();
    if !stored.is_empty() {
        let frame = compress_frame(&plain, 1).expect("a whole number of blocks");
        assert_eq!(decode_frame(&frame.entry, &frame.bytes).as_deref(), Ok(plain.as_slice()));
    }
});
