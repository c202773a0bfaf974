//! Lists by the page: which rows, and the links to the others.

use pitcrew_control::links::encode;
use pitcrew_store::Paging;

/// Where a page of a list is in the whole.
pub struct Pager {
    pub page: u64,
    pub pages: u64,
    pub total: u64,
    pub first: u64,
    pub last: u64,
    /// The address without the page's number, ending so that it can be added.
    base: String,
}

/// The rows of the page with that number, from 1.
pub fn rows_of(page: u64, size: u32) -> Paging {
    let page = page.clamp(1, 1 << 32);
    Paging { limit: size, offset: (page - 1) * u64::from(size) }
}

impl Pager {
    /// `keep` are the other values of the query.
    pub fn new(path: &str, keep: &[(&str, &str)], page: u64, size: u32, total: u64) -> Pager {
        let size = u64::from(size);
        let pages = total.div_ceil(size).max(1);
        let page = page.clamp(1, pages);
        let first = (page - 1) * size + u64::from(total > 0);
        let last = (page * size).min(total);
        let mut base = format!("{path}?");
        for (key, value) in keep.iter().filter(|(_, value)| !value.is_empty()) {
            base.push_str(&format!("{key}={}&", encode(value)));
        }
        Pager { page, pages, total, first, last, base }
    }

    pub fn previous(&self) -> Option<String> {
        (self.page > 1).then(|| self.at(self.page - 1))
    }

    pub fn next(&self) -> Option<String> {
        (self.page < self.pages).then(|| self.at(self.page + 1))
    }

    fn at(&self, page: u64) -> String {
        format!("{}page={page}", self.base)
    }
}
