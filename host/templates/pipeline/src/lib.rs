//! Three tasks: the first makes a list, the second runs once for each of its elements, the third puts the results together.

use airtight_sdk::prelude::*;

#[data]
struct Source {
    text: String,
}

/// Splits a text into its paragraphs.
#[task]
fn split(input: Source) -> Vec<String> {
    let paragraphs = input.text.split("\n\n").map(str::trim);
    paragraphs.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

#[data]
struct Paragraph {
    text: String,
}

#[data]
struct Counted {
    words: u32,
    longest: String,
}

/// Counts the words of a paragraph.
#[task]
fn count(input: Paragraph) -> Result<Counted> {
    let words: Vec<&str> = input.text.split_whitespace().collect();
    let longest = words.iter().max_by_key(|word| word.chars().count());
    let longest = longest.ok_or_else(|| Failure::fatal("the paragraph has no words").code("no_words"))?;
    info!(words = words.len(), "counted a paragraph");
    Ok(Counted {
        words: u32::try_from(words.len())?,
        longest: (*longest).to_owned(),
    })
}

#[data]
struct Results {
    paragraphs: Vec<Counted>,
}

#[data]
struct Report {
    words: u32,
    /// A blob: its content is stored once, and what travels between tasks is a reference.
    table: Blob,
}

/// Writes a table of all paragraphs.
#[task]
fn report(input: Results) -> Result<Report> {
    let mut table = "words,longest\n".to_owned();
    for paragraph in &input.paragraphs {
        table.push_str(&format!("{},{}\n", paragraph.words, paragraph.longest));
    }
    Ok(Report {
        words: input.paragraphs.iter().map(|paragraph| paragraph.words).sum(),
        table: Blob::from_bytes(table, "text/csv")?,
    })
}

#[cfg(test)]
mod tests {
    use airtight_sdk::testing::TestHost;

    use super::*;

    #[test]
    fn paragraphs_are_counted_one_by_one() {
        let text = "one two\n\n  three\n\n\n".to_owned();
        let paragraphs = split(Source { text });
        assert_eq!(paragraphs, ["one two", "three"]);
        let counted = count(Paragraph { text: paragraphs[0].clone() }).unwrap();
        assert_eq!((counted.words, counted.longest.as_str()), (2, "two"));
    }

    #[test]
    fn the_report_is_a_table() {
        // Blobs are kept by a host; in tests that is one in memory.
        let _host = TestHost::new().install();
        let counted = Counted { words: 2, longest: "two".to_owned() };
        let report = report(Results { paragraphs: vec![counted] }).unwrap();
        assert_eq!(report.words, 2);
        assert_eq!(report.table.text().unwrap(), "words,longest\n2,two\n");
    }
}
