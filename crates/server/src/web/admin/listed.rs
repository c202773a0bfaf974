//! Things that stand in a list and are made and changed with one form: what their pages share.

use axum::response::Response;

use crate::Site;
use crate::auth::User;
use crate::web::form::{Form, FormPage};
use crate::web::page::Shell;

/// A kind of thing. Its form has the name first, which is fixed once the thing is there.
pub struct Listed {
    pub section: &'static str,
    /// The address of the list, and what it is called.
    pub list: &'static str,
    pub name: &'static str,
    /// The heading of the form that makes one.
    pub new: &'static str,
    pub lead: &'static str,
}

impl Listed {
    /// The form that makes one; or that changes the one of this name.
    fn page(&self, site: &Site, user: &User, one: Option<&str>, form: Form) -> FormPage {
        let (action, submit) = if one.is_some() { ("edit", "Save") } else { ("new", "Create") };
        FormPage {
            shell: Shell::new(site, user, one.unwrap_or(self.new)).section(self.section),
            above: (self.list, self.name),
            lead: self.lead,
            action: format!("{}/{action}", self.list),
            form,
            submit,
            below: String::new(),
        }
    }

    pub fn blank(&self, site: &Site, user: &User, form: Form) -> Response {
        self.page(site, user, None, form).response()
    }

    pub fn edit(&self, site: &Site, user: &User, one: &str, form: Form) -> Response {
        self.page(site, user, Some(one), form).response()
    }

    /// The form once more, with what is wrong.
    pub fn refused(&self, site: &Site, user: &User, form: Form, is_new: bool) -> Response {
        let name = form.fields.first().map(|field| field.text.clone()).filter(|_| !is_new);
        self.page(site, user, name.as_deref(), form).refused()
    }
}
