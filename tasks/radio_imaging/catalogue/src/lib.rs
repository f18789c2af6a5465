//! The last stage of the radio imaging workflow: put the cube together, find the sources, judge the quality, report.

mod assemble;
mod find;
mod finder;
mod fit;
mod quality;
mod report;
mod spectrum;
