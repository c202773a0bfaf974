//! The pictures that an executed notebook holds, for the page and the PDF.
//!
//! Invariant: what is taken from a notebook is bounded in number, bytes and pixels, and is a picture by its content,
//! not by what the notebook calls it. The page shows pictures by `<img>`, where nothing in them can run; the PDF
//! gets those that can be decoded. What is left out is counted.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::text::{bytes, printable, shortened};

/// An executed notebook larger than this is not looked through.
const NOTEBOOK_MAX: u64 = 128 << 20;
/// Of one picture, in bytes.
const PICTURE_MAX: usize = 4 << 20;
/// Of all pictures of a report, so that its page can be sent by mail.
const ALL_MAX: usize = 16 << 20;
const COUNT_MAX: usize = 40;
/// In pixels. A small file may unfold to a huge picture.
const PIXELS_MAX: u64 = 24_000_000;

/// A picture that a cell of a notebook made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Picture {
    /// The number of the cell among the code cells.
    pub cell: u32,
    /// What the kernel says of it, or the first line of the cell.
    pub caption: String,
    /// `image/png`, …
    pub media_type: String,
    pub bytes: usize,
    /// In pixels, where the file says so.
    pub size: Option<(u32, u32)>,
    /// In hex; tells whether it changed.
    pub sha256: String,
    #[serde(skip)]
    pub(super) data: Vec<u8>,
}

/// What may still be taken into one report.
pub(super) struct Room {
    count: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Room { count: COUNT_MAX, bytes: ALL_MAX }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    cells: Vec<Cell>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cell {
    cell_type: String,
    source: Text,
    outputs: Vec<Output>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Output {
    data: Data,
}

/// The kinds of one output; other kinds are not read. The first one that is there is shown.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    #[serde(rename = "image/png")]
    png: Option<Text>,
    #[serde(rename = "image/jpeg")]
    jpeg: Option<Text>,
    #[serde(rename = "image/webp")]
    webp: Option<Text>,
    #[serde(rename = "image/gif")]
    gif: Option<Text>,
    #[serde(rename = "image/svg+xml")]
    svg: Option<Text>,
    #[serde(rename = "text/plain")]
    plain: Option<Text>,
}

/// A text, or its lines joined; empty when it is something else.
#[derive(Default)]
struct Text(String);

/// By hand and not as an untagged enum, which would hold a large picture twice.
impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Joined;
        impl<'de> Visitor<'de> for Joined {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of its lines")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Text, E> {
                Ok(Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut lines: A) -> Result<Text, A::Error> {
                let mut text = String::new();
                while let Some(line) = lines.next_element::<String>()? {
                    text.push_str(&line);
                }
                Ok(Text(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text::default())
            }

            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Joined)
    }
}

/// The pictures of the executed notebook at `path`, in their order, and what is to be remarked about them.
pub(super) fn read(path: &Path, room: &mut Room) -> (Vec<Picture>, Option<String>) {
    let open = || {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        if size > NOTEBOOK_MAX {
            return Err(format!("it has {}, and at most {} are read", bytes(size), bytes(NOTEBOOK_MAX)));
        }
        let document: Document = serde_json::from_reader(BufReader::new(file.take(NOTEBOOK_MAX)))
            .map_err(|error| format!("it is malformed: {error}"))?;
        Ok(document)
    };
    let document = match open() {
        Ok(document) => document,
        Err(why) => return (Vec::new(), Some(format!("cannot show pictures of `{}`: {why}", path.display()))),
    };
    let (mut pictures, mut left_out) = (Vec::new(), 0);
    let mut number = 0;
    for cell in document.cells {
        let source = cell.source.0;
        if cell.cell_type != "code" || source.trim().is_empty() {
            continue;
        }
        number += 1;
        for output in cell.outputs {
            match picture(output.data, number, &source, room) {
                Some(Ok(picture)) => pictures.push(picture),
                Some(Err(TooMuch)) => left_out += 1,
                None => {}
            }
        }
    }
    let remark = (left_out > 0).then(|| {
        format!("{left_out} pictures of `{}` are too many, too large or damaged, and not shown here", path.display())
    });
    (pictures, remark)
}

struct TooMuch;

fn picture(data: Data, cell: u32, source: &str, room: &mut Room) -> Option<Result<Picture, TooMuch>> {
    let plain = data.plain.unwrap_or_default().0;
    let raster = [data.png, data.jpeg, data.webp, data.gif].into_iter().flatten().next();
    let content = match (raster, data.svg) {
        (Some(text), _) => decoded(text.0),
        (None, Some(text)) => Some(text.0.into_bytes()),
        (None, None) => return None,
    };
    let fits = |data: &Vec<u8>| data.len() <= PICTURE_MAX.min(room.bytes) && room.count > 0;
    let Some((data, media_type)) = content.filter(fits).and_then(|data| media_type(&data).map(|kind| (data, kind)))
    else {
        return Some(Err(TooMuch));
    };
    let size = size(&data, media_type);
    if size.is_some_and(|(w, h)| u64::from(w) * u64::from(h) > PIXELS_MAX) {
        return Some(Err(TooMuch));
    }
    room.count -= 1;
    room.bytes -= data.len();
    // `<Figure size 1000x400 with 2 Axes>` says something; the name of an object in memory does not.
    let said = plain.trim().trim_matches(['<', '>']);
    let first = source.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let caption = if said.is_empty() || said.contains(" at 0x") { first } else { said };
    Some(Ok(Picture {
        cell,
        caption: shortened(printable(caption).lines().next().unwrap_or_default(), 160),
        media_type: media_type.to_owned(),
        bytes: data.len(),
        size,
        sha256: Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect(),
        data,
    }))
}

fn decoded(mut text: String) -> Option<Vec<u8>> {
    if text.len() > PICTURE_MAX * 2 {
        return None;
    }
    text.retain(|c| !c.is_ascii_whitespace());
    BASE64.decode(text).ok()
}

/// What it is by its first bytes.
fn media_type(data: &[u8]) -> Option<&'static str> {
    let head = data.get(..data.len().min(400)).unwrap_or_default();
    match head {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => {
            let text = String::from_utf8_lossy(head);
            let text = text.trim_start();
            (text.starts_with("<svg") || text.starts_with("<?xml") || text.starts_with("<!DOCTYPE svg"))
                .then_some("image/svg+xml")
        }
    }
}

fn size(data: &[u8], media_type: &str) -> Option<(u32, u32)> {
    match media_type {
        "image/png" => {
            let side = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
            side(16).zip(side(20))
        }
        "image/jpeg" => jpeg_frame(data).map(|frame| (frame.width, frame.height)),
        _ => None,
    }
}

struct JpegFrame {
    width: u32,
    height: u32,
    channels: u8,
}

/// Goes from marker to marker until the one that begins the frame.
fn jpeg_frame(data: &[u8]) -> Option<JpegFrame> {
    let mut at = 2;
    loop {
        let [0xff, marker, high, low] = *data.get(at..at + 4)? else { return None };
        let is_frame = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
        if is_frame {
            let [_, h1, h0, w1, w0, channels] = *data.get(at + 4..at + 10)? else { return None };
            let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
            return Some(JpegFrame { width: side(w1, w0), height: side(h1, h0), channels });
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
    }
}

/// A picture as a PDF holds it.
pub(super) struct Raster {
    pub width: u32,
    pub height: u32,
    pub gray: bool,
    /// A JPEG as it is; else packed rows.
    pub is_jpeg: bool,
    pub data: Vec<u8>,
}

impl Picture {
    /// For `src`.
    pub(super) fn data_url(&self) -> String {
        format!("data:{};base64,{}", self.media_type, BASE64.encode(&self.data))
    }

    /// `None`: a kind that a PDF cannot hold as it is, or damaged.
    pub(super) fn raster(&self) -> Option<Raster> {
        match self.media_type.as_str() {
            "image/jpeg" => {
                let frame = jpeg_frame(&self.data).filter(|frame| matches!(frame.channels, 1 | 3))?;
                let (width, height, gray) = (frame.width, frame.height, frame.channels == 1);
                let fine = width > 0 && height > 0;
                fine.then(|| Raster { width, height, gray, is_jpeg: true, data: self.data.clone() })
            }
            "image/png" => png(&self.data),
            _ => None,
        }
    }
}

/// Decoded, laid on white (a PDF's page), and packed again.
fn png(data: &[u8]) -> Option<Raster> {
    let limits = png::Limits { bytes: PIXELS_MAX as usize * 8 };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(data), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().ok()?;
    let mut pixels = vec![0; reader.output_buffer_size()?];
    let frame = reader.next_frame(&mut pixels).ok()?;
    pixels.truncate(frame.buffer_size());
    let on_white = |value: u8, alpha: u8| {
        let (value, alpha) = (u16::from(value), u16::from(alpha));
        ((value * alpha + 255 * (255 - alpha)) / 255) as u8
    };
    let (gray, flat) = match frame.color_type {
        png::ColorType::Grayscale => (true, pixels),
        png::ColorType::GrayscaleAlpha => (true, pixels.chunks_exact(2).map(|p| on_white(p[0], p[1])).collect()),
        png::ColorType::Rgb => (false, pixels),
        png::ColorType::Rgba => (
            false,
            pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]].map(|value| on_white(value, p[3]))).collect(),
        ),
        png::ColorType::Indexed => return None,
    };
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    packer.write_all(&flat).ok()?;
    Some(Raster { width: frame.width, height: frame.height, gray, is_jpeg: false, data: packer.finish().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notebook(outputs: &str) -> (Vec<Picture>, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.ipynb");
        let cells = format!(
            r##"{{"cells": [{{"cell_type": "markdown", "source": "# A"}},
            {{"cell_type": "code", "source": ["\n", "draw()"], "outputs": {outputs}}}]}}"##
        );
        std::fs::write(&path, cells).unwrap();
        read(&path, &mut Room::default())
    }

    fn rgba(pixels: &[u8], width: u32, height: u32) -> Vec<u8> {
        let mut data = Vec::new();
        let mut encoder = png::Encoder::new(&mut data, width, height);
        encoder.set_color(png::ColorType::Rgba);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        data
    }

    #[test]
    fn a_picture_is_what_its_content_says_and_lies_on_white_in_the_pdf() {
        let data = rgba(&[255, 0, 0, 255, 0, 0, 0, 0], 2, 1);
        let text = BASE64.encode(&data);
        let (pictures, remark) = notebook(&format!(
            r#"[{{"data": {{"image/jpeg": "{text}\n", "text/plain": ["<Figure size 2x1 with 0 Axes>"]}}}},
            {{"data": {{"image/png": ["{text}"], "text/plain": "<PIL.Image at 0x7f00>"}}}}, {{"text": "no picture"}}]"#
        ));
        assert_eq!(remark, None);
        assert_eq!(pictures[0].media_type, "image/png");
        assert_eq!((pictures[0].cell, pictures[0].caption.as_str()), (1, "Figure size 2x1 with 0 Axes"));
        assert_eq!(pictures[1].caption, "draw()");
        let raster = pictures[0].raster().unwrap();
        let mut flat = Vec::new();
        flate2::read::ZlibDecoder::new(&raster.data[..]).read_to_end(&mut flat).unwrap();
        assert_eq!((raster.width, raster.height, flat), (2, 1, vec![255, 0, 0, 255, 255, 255]));
    }

    #[test]
    fn bombs_lies_and_damage_are_left_out_and_counted() {
        let mut bomb = rgba(&[0; 4], 1, 1);
        bomb[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let outputs = [BASE64.encode(bomb), BASE64.encode("<script>"), "!".into()]
            .map(|text| format!(r#"{{"data": {{"image/png": "{text}"}}}}"#));
        let (pictures, remark) = notebook(&format!("[{}]", outputs.join(",")));
        assert!(pictures.is_empty());
        assert!(remark.unwrap().starts_with("3 pictures of"), "counted");
        let (_, remark) = notebook("3");
        assert!(remark.unwrap().contains("it is malformed"));
        let deep = format!("[{{\"data\": {{\"image/png\": {}}}}}]", "[".repeat(100_000));
        assert!(notebook(&deep).1.is_some(), "no end of the stack");
        let dir = tempfile::tempdir().unwrap();
        let huge = dir.path().join("huge.ipynb");
        File::create(&huge).unwrap().set_len(200 << 20).unwrap();
        assert!(read(&huge, &mut Room::default()).1.unwrap().contains("it has 200 MiB, and at most 128 MiB are read"));
        let cut = rgba(&[9; 400], 10, 10);
        let torn = Picture { media_type: "image/png".into(), data: cut[..60].to_vec(), ..Picture::default() };
        assert!(torn.raster().is_none());
        assert!(jpeg_frame(&[0xff, 0xd8, 0xff, 0xe0, 0, 0]).is_none());
    }
}
