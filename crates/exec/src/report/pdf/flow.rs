//! Pages that fill from top to bottom: text that wraps, tables that go on over the page's end, charts.
//!
//! Invariant: nothing is drawn outside the margins; what does not fit goes to the next page. Lengths are in points,
//! `y` is measured from the top of the page.

use pdf_writer::types::LineCapStyle;
use pdf_writer::{Content, Date, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use crate::report::chart::{Anchor, Chart, Shape, Tone};
use crate::report::font::{Font, encode};
use crate::report::pictures::Raster;

const PAGE: (f64, f64) = (595.0, 842.0);
const MARGIN: f64 = 48.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = PAGE.1 - 58.0;
pub(super) const WIDTH: f64 = PAGE.0 - 2.0 * MARGIN;

/// Of one column of a table.
pub(super) struct Column {
    pub head: &'static str,
    /// Of the table's width.
    pub share: f64,
    pub right: bool,
}

pub(super) struct Flow {
    pages: Vec<Content>,
    /// The top of what comes next.
    pub y: f64,
    /// Titles of sections, with the page and the height at which they begin.
    outline: Vec<(String, usize, f64)>,
    pictures: Vec<Raster>,
    /// A character was replaced because the fonts lack it.
    pub lost: bool,
}

pub(super) fn rgb(tone: Tone) -> [f32; 3] {
    let hex: u32 = match tone {
        Tone::Ink => 0x19_1d_24,
        Tone::Muted => 0x62_6b_79,
        Tone::Grid => 0xe2_e6_ec,
        Tone::Track => 0xe9_ed_f2,
        Tone::Good => 0x1f_8f_55,
        Tone::Bad => 0xcf_3a_36,
        Tone::Warn => 0xb9_7a_13,
        Tone::Accent => 0x3a_6f_d8,
        Tone::Second => 0x7a_5f_c7,
    };
    [16, 8, 0].map(|shift| ((hex >> shift) & 0xff) as f32 / 255.0)
}

impl Flow {
    pub fn new() -> Self {
        Flow { pages: vec![Content::new()], y: TOP, outline: Vec::new(), pictures: Vec::new(), lost: false }
    }

    fn page(&mut self) -> &mut Content {
        let last = self.pages.len() - 1;
        &mut self.pages[last]
    }

    fn room(&self) -> f64 {
        BOTTOM - self.y
    }

    fn turn(&mut self) {
        self.pages.push(Content::new());
        self.y = TOP;
    }

    /// Goes to the next page unless `height` fits on this one.
    pub fn need(&mut self, height: f64) {
        if height > self.room() && self.y > TOP {
            self.turn();
        }
    }

    pub fn space(&mut self, height: f64) {
        self.y += height;
    }

    /// Text at a place; `x` from the left margin, `y` the base line.
    pub fn text_at(&mut self, x: f64, y: f64, text: &str, font: Font, size: f64, tone: Tone) {
        let (bytes, lost) = encode(text);
        self.lost |= lost;
        let [r, g, b] = rgb(tone);
        let name: &[u8] = match font {
            Font::Regular => b"R",
            Font::Bold => b"B",
            Font::Mono => b"M",
        };
        let page = self.page();
        page.begin_text().set_font(Name(name), size as f32).set_fill_rgb(r, g, b);
        page.next_line((MARGIN + x) as f32, (PAGE.1 - y) as f32).show(Str(&bytes)).end_text();
    }

    pub fn rect_at(&mut self, x: f64, y: f64, w: f64, h: f64, radius: f64, tone: Tone) {
        let [r, g, b] = rgb(tone);
        let radius = radius.min(w / 2.0).min(h / 2.0) as f32;
        let (x, y) = ((MARGIN + x) as f32, (PAGE.1 - y - h) as f32);
        let (w, h) = (w as f32, h as f32);
        // Of a quarter circle by a cubic curve.
        let k = radius * 0.4477;
        let page = self.page();
        page.set_fill_rgb(r, g, b).move_to(x + radius, y).line_to(x + w - radius, y);
        page.cubic_to(x + w - k, y, x + w, y + k, x + w, y + radius).line_to(x + w, y + h - radius);
        page.cubic_to(x + w, y + h - k, x + w - k, y + h, x + w - radius, y + h).line_to(x + radius, y + h);
        page.cubic_to(x + k, y + h, x, y + h - k, x, y + h - radius).line_to(x, y + radius);
        page.cubic_to(x, y + k, x + k, y, x + radius, y).close_path().fill_nonzero();
    }

    pub fn line_at(&mut self, from: (f64, f64), to: (f64, f64), width: f32, tone: Tone) {
        let [r, g, b] = rgb(tone);
        let page = self.page();
        page.set_stroke_rgb(r, g, b).set_line_width(width).set_line_cap(LineCapStyle::ButtCap);
        page.move_to((MARGIN + from.0) as f32, (PAGE.1 - from.1) as f32);
        page.line_to((MARGIN + to.0) as f32, (PAGE.1 - to.1) as f32).stroke();
    }

    /// The title of a section, never alone at the foot of a page: `below` of what follows it fits too.
    pub fn heading(&mut self, text: &str, below: f64) {
        self.space(16.0);
        self.need(30.0 + below.min(BOTTOM - TOP - 30.0));
        let page = self.pages.len() - 1;
        self.outline.push((text.to_owned(), page, self.y));
        self.text_at(0.0, self.y + 12.0, text, Font::Bold, 13.0, Tone::Ink);
        self.space(24.0);
    }

    pub fn subheading(&mut self, text: &str, below: f64) {
        self.space(10.0);
        self.need(20.0 + below);
        self.text_at(0.0, self.y + 9.0, text, Font::Bold, 9.5, Tone::Muted);
        self.space(18.0);
    }

    /// Lines as many as it takes; `most` cuts them.
    pub fn paragraph(&mut self, text: &str, font: Font, size: f64, tone: Tone, most: usize) {
        let lines = font.wrap(text, size, WIDTH);
        let cut = lines.len() > most;
        for (index, line) in lines.iter().take(most).enumerate() {
            self.need(size * 1.4);
            let line = if cut && index + 1 == most { format!("{line} …") } else { line.clone() };
            self.text_at(0.0, self.y + size, &font.fit(&line, size, WIDTH), font, size, tone);
            self.space(size * 1.4);
        }
    }

    /// Text of a program on a grey ground: its last lines, for there stands what went wrong.
    pub fn code(&mut self, text: &str, most: usize) {
        const SIZE: f64 = 7.5;
        const LINE: f64 = 10.2;
        let mut lines = Font::Mono.chop(text, SIZE, WIDTH - 16.0);
        if lines.len() > most {
            lines.drain(..lines.len() - most);
            lines.insert(0, "…".into());
        }
        self.space(2.0);
        for line in lines {
            self.need(LINE);
            self.rect_at(0.0, self.y, WIDTH, LINE + 0.3, 0.0, Tone::Track);
            self.text_at(8.0, self.y + SIZE, &line, Font::Mono, SIZE, Tone::Ink);
            self.space(LINE);
        }
        self.space(6.0);
    }

    pub fn chart(&mut self, chart: &Chart) {
        self.need(chart.height);
        let top = self.y;
        for shape in &chart.shapes {
            match shape {
                Shape::Rect { x, y, w, h, tone, .. } => self.rect_at(*x, top + y, *w, *h, 1.5, *tone),
                Shape::Line { x1, y1, x2, y2, tone } => self.line_at((*x1, top + y1), (*x2, top + y2), 0.7, *tone),
                Shape::Text { x, y, text, size, tone, anchor } => {
                    let width = Font::Regular.width(text, *size);
                    let x = match anchor {
                        Anchor::Start => *x,
                        Anchor::Middle => x - width / 2.0,
                        Anchor::End => x - width,
                    };
                    self.text_at(x, top + y, text, Font::Regular, *size, *tone);
                }
            }
        }
        self.space(chart.height + 4.0);
    }

    /// A picture as wide as the page has room, at most at the size that screens give it, with a line below it.
    pub fn picture(&mut self, picture: Raster, caption: &str) {
        const HIGHEST: f64 = 330.0;
        let (w, h) = (f64::from(picture.width.max(1)), f64::from(picture.height.max(1)));
        let scale = (WIDTH / w).min(HIGHEST / h).min(0.75);
        let (w, h) = (w * scale, h * scale);
        self.space(8.0);
        self.need(h + 18.0);
        let bottom = PAGE.1 - self.y - h;
        let name = format!("I{}", self.pictures.len());
        self.pictures.push(picture);
        let page = self.page();
        page.save_state().transform([w as f32, 0.0, 0.0, h as f32, MARGIN as f32, bottom as f32]);
        page.x_object(Name(name.as_bytes())).restore_state();
        self.space(h + 4.0);
        self.paragraph(caption, Font::Regular, 8.5, Tone::Muted, 2);
    }

    /// Rows of texts, each text with its colour. The heads come again on every page.
    pub fn table(&mut self, columns: &[Column], rows: impl Iterator<Item = Vec<(String, Tone)>>) {
        const SIZE: f64 = 8.5;
        const LINE: f64 = 11.0;
        const PAD: f64 = 7.0;
        const LINES_MAX: usize = 12;
        let gap = 10.0;
        let has_head = columns.iter().any(|column| !column.head.is_empty());
        let mut fresh = true;
        for row in rows {
            let cells: Vec<Vec<String>> = row
                .iter()
                .zip(columns)
                .map(|((text, _), column)| {
                    let mut lines = Font::Regular.wrap(text, SIZE, column.share * WIDTH - gap);
                    if lines.len() > LINES_MAX {
                        lines.truncate(LINES_MAX - 1);
                        lines.push("…".into());
                    }
                    lines
                })
                .collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(1) as f64 * LINE + PAD;
            let head = if has_head { LINE + PAD } else { 0.0 };
            if height + if fresh { head } else { 0.0 } > self.room() {
                self.turn();
                fresh = true;
            }
            if fresh && has_head {
                let mut x = 0.0;
                for column in columns {
                    let at = place(column, x, column.head, SIZE, gap);
                    self.text_at(at, self.y + SIZE, column.head, Font::Bold, SIZE, Tone::Muted);
                    x += column.share * WIDTH;
                }
                self.space(head);
                self.line_at((0.0, self.y - PAD / 2.0), (WIDTH, self.y - PAD / 2.0), 0.6, Tone::Grid);
            }
            fresh = false;
            let mut x = 0.0;
            for ((lines, column), (_, tone)) in cells.iter().zip(columns).zip(&row) {
                for (index, line) in lines.iter().enumerate() {
                    let at = place(column, x, line, SIZE, gap);
                    self.text_at(at, self.y + SIZE + index as f64 * LINE, line, Font::Regular, SIZE, *tone);
                }
                x += column.share * WIDTH;
            }
            self.space(height);
            self.line_at((0.0, self.y - PAD / 2.0), (WIDTH, self.y - PAD / 2.0), 0.4, Tone::Grid);
        }
        self.space(2.0);
    }

    /// The document, with a foot on every page.
    pub fn finish(mut self, title: &str, foot: &str, date: Date) -> Vec<u8> {
        let count = self.pages.len();
        let pages = std::mem::take(&mut self.pages);
        let mut done = Vec::with_capacity(count);
        for (index, page) in pages.into_iter().enumerate() {
            self.pages = vec![page];
            let y = PAGE.1 - 34.0;
            self.line_at((0.0, y - 12.0), (WIDTH, y - 12.0), 0.4, Tone::Grid);
            let number = format!("{} / {count}", index + 1);
            let width = Font::Regular.width(&number, 8.0);
            self.text_at(0.0, y, &Font::Regular.fit(foot, 8.0, WIDTH - 60.0), Font::Regular, 8.0, Tone::Muted);
            self.text_at(WIDTH - width, y, &number, Font::Regular, 8.0, Tone::Muted);
            done.append(&mut self.pages);
        }
        assemble(done, &self.pictures, &self.outline, title, date)
    }
}

fn place(column: &Column, x: f64, text: &str, size: f64, gap: f64) -> f64 {
    if column.right { x + column.share * WIDTH - gap - Font::Regular.width(text, size) } else { x }
}

fn assemble(
    pages: Vec<Content>,
    pictures: &[Raster],
    outline: &[(String, usize, f64)],
    title: &str,
    date: Date,
) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let mut last = 0;
    let mut next = || {
        last += 1;
        Ref::new(last)
    };
    let (catalog, tree, info, outlines) = (next(), next(), next(), next());
    let fonts =
        [(b"R", "Helvetica"), (b"B", "Helvetica-Bold"), (b"M", "Courier")].map(|(name, base)| (name, base, next()));
    let ids: Vec<(Ref, Ref)> = pages.iter().map(|_| (next(), next())).collect();
    let images: Vec<(String, Ref)> = (0..pictures.len()).map(|index| (format!("I{index}"), next())).collect();
    let items: Vec<Ref> = outline.iter().map(|_| next()).collect();

    let mut root = pdf.catalog(catalog);
    root.pages(tree).lang(TextStr("en"));
    root.viewer_preferences().display_doc_title(true);
    if !items.is_empty() {
        root.outlines(outlines);
    }
    root.finish();
    pdf.pages(tree).kids(ids.iter().map(|(page, _)| *page)).count(ids.len() as i32);
    for (content, (page, stream)) in pages.into_iter().zip(&ids) {
        let mut page = pdf.page(*page);
        page.media_box(Rect::new(0.0, 0.0, PAGE.0 as f32, PAGE.1 as f32)).parent(tree).contents(*stream);
        let mut resources = page.resources();
        let mut dictionary = resources.fonts();
        for (name, _, id) in &fonts {
            dictionary.pair(Name(*name), *id);
        }
        dictionary.finish();
        let mut dictionary = resources.x_objects();
        for (name, id) in &images {
            dictionary.pair(Name(name.as_bytes()), *id);
        }
        dictionary.finish();
        resources.finish();
        page.finish();
        pdf.stream(*stream, &content.finish());
    }
    for (_, base, id) in fonts {
        pdf.type1_font(id).base_font(Name(base.as_bytes())).encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    for (picture, (_, id)) in pictures.iter().zip(&images) {
        let mut image = pdf.image_xobject(*id, &picture.data);
        image.filter(if picture.is_jpeg { Filter::DctDecode } else { Filter::FlateDecode });
        image.width(picture.width as i32).height(picture.height as i32).bits_per_component(8);
        match picture.gray {
            true => image.color_space().device_gray(),
            false => image.color_space().device_rgb(),
        };
    }
    if let (Some(first), Some(last)) = (items.first(), items.last()) {
        pdf.outline(outlines).first(*first).last(*last).count(items.len() as i32);
    }
    for (index, (text, page, y)) in outline.iter().enumerate() {
        let mut item = pdf.outline_item(items[index]);
        item.title(TextStr(text)).parent(outlines);
        if index > 0 {
            item.prev(items[index - 1]);
        }
        if let Some(next) = items.get(index + 1) {
            item.next(*next);
        }
        item.dest().page(ids[*page].0).xyz(0.0, (PAGE.1 - y + 8.0) as f32, None);
    }
    let mut about = pdf.document_info(info);
    about.title(TextStr(title)).creator(TextStr("Pitcrew")).producer(TextStr("Pitcrew"));
    about.creation_date(date).modified_date(date);
    about.finish();
    pdf.finish()
}
