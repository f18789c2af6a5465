//! Findings in a manifest, printed the way compilers do: what, where, the line itself, a caret, and what to do.

use ports::deploy::{Diagnostic, Severity};

use super::escape;
use super::term::Paint;

/// All findings in the order of their positions, then one line that counts them.
pub(crate) fn render(file: &str, source: &str, diagnostics: &[Diagnostic], paint: Paint) -> String {
    let mut sorted: Vec<_> = diagnostics.iter().collect();
    sorted.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    let mut text = String::new();
    for diagnostic in &sorted {
        text.push_str(&one(file, source, diagnostic, paint));
        text.push('\n');
    }
    if let Some(line) = count(file, diagnostics) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn one(file: &str, source: &str, diagnostic: &Diagnostic, paint: Paint) -> String {
    let kind = match diagnostic.severity {
        Severity::Error => paint.red("error"),
        Severity::Warning => paint.yellow("warning"),
        Severity::Note => paint.blue("note"),
    };
    let code = escape::line(&diagnostic.code);
    let message = escape::block(&diagnostic.message);
    let mut text = format!("{kind}{} {}\n", paint.dim(&format!("[{code}]:")), paint.bold(&message));
    let number = diagnostic.line.to_string();
    let margin = " ".repeat(number.len());
    let arrow = paint.blue("-->");
    text.push_str(&format!(
        "{margin}{arrow} {}:{}:{}\n",
        escape::line(file),
        diagnostic.line,
        diagnostic.column
    ));
    let line_index = usize::try_from(diagnostic.line).unwrap_or(usize::MAX).wrapping_sub(1);
    if let Some(line) = source.lines().nth(line_index) {
        let bar = paint.blue("|");
        let before: String = line
            .chars()
            .take(usize::try_from(diagnostic.column.saturating_sub(1)).unwrap_or(0))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        text.push_str(&format!("{margin} {bar}\n"));
        text.push_str(&format!(
            "{} {bar} {}\n",
            paint.blue(&number),
            escape::shorten(&escape::line(line), 160)
        ));
        if before.chars().count() < 160 {
            text.push_str(&format!("{margin} {bar} {before}{}\n", paint.red("^")));
        }
    }
    if let Some(hint) = &diagnostic.hint {
        let help = paint.bold("help");
        text.push_str(&format!(
            "{margin} {} {help}: {}\n",
            paint.blue("="),
            escape::block(hint)
        ));
    }
    text
}

fn count(file: &str, diagnostics: &[Diagnostic]) -> Option<String> {
    let of = |severity| {
        diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    };
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let what = match (errors, warnings) {
        (0, 0) => return None,
        (0, warnings) => plural(warnings, "warning"),
        (errors, 0) => plural(errors, "error"),
        (errors, warnings) => format!("{} and {}", plural(errors, "error"), plural(warnings, "warning")),
    };
    Some(format!("{what} in {}", escape::line(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_line_and_the_place() {
        let source = "dag: x\ntasks:\n  a: {component: ml@1.3}\n  b: {component: ml@1.2, after: [c]}\n";
        let diagnostic = |severity, code: &str, line, column, message: &str, hint: Option<&str>| Diagnostic {
            severity,
            code: code.to_owned(),
            message: message.to_owned(),
            line,
            column,
            hint: hint.map(str::to_owned),
        };
        let found = [
            diagnostic(
                Severity::Error,
                "unknown_task",
                4,
                34,
                "task `b` runs after `c`, which does not exist",
                None,
            ),
            diagnostic(
                Severity::Error,
                "unknown_component",
                3,
                18,
                "component `ml@1.3` does not exist",
                Some("there is `ml@1.2`"),
            ),
            diagnostic(
                Severity::Warning,
                "unused",
                99,
                1,
                "a line that the file does not have",
                None,
            ),
        ];
        insta::assert_snapshot!(render("dag.yaml", source, &found, Paint::never()), @r"
        error[unknown_component]: component `ml@1.3` does not exist
         --> dag.yaml:3:18
          |
        3 |   a: {component: ml@1.3}
          |                  ^
          = help: there is `ml@1.2`

        error[unknown_task]: task `b` runs after `c`, which does not exist
         --> dag.yaml:4:34
          |
        4 |   b: {component: ml@1.2, after: [c]}
          |                                  ^

        warning[unused]: a line that the file does not have
          --> dag.yaml:99:1

        2 errors and 1 warning in dag.yaml
        ");
    }
}
