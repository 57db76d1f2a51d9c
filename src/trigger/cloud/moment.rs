//! Moments as clouds write them.

use std::time::SystemTime;

/// `2017-09-18T08:22:00Z` (RFC 3339).
pub fn rfc3339(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339_weak(text).ok()
}

/// `Mon, 19 Sep 2016 18:29:47 GMT` (RFC 9110, IMF-fixdate).
pub fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    rfc3339(&format!("{year}-{month:02}-{day:0>2}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        assert_eq!(http_date("Mon, 19 Sep 2016 18:29:47 GMT"), rfc3339("2016-09-19T18:29:47Z"));
        assert!(http_date("Mon, 19 Sep 2016 18:29:47 GMT").is_some());
        assert_eq!(http_date("soon"), None);
    }
}
