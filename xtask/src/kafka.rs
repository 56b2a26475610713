//! Apache Kafka for the tests: the published Maven artifacts, fetched once into the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::run_command;
use crate::{cache, tools};

/// As in `freshet_sql_tests::kafka`, which starts what is fetched here.
const VERSION: &str = "3.9.1";

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>freshet</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>KAFKA_VERSION</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#;

/// The folder with Kafka's jars in `libs`, fetched if it is not there yet.
pub fn fetch() -> Result<PathBuf> {
    let folder = cache()?.join(format!("kafka-{VERSION}"));
    let libs = folder.join("libs");
    if libs.is_dir() {
        return Ok(folder);
    }
    tools::ensure(&[tools::FOR_TESTS])?;
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    std::fs::write(folder.join("pom.xml"), POM.replace("KAFKA_VERSION", VERSION))?;
    // Into another folder first: `libs` is there only when it is complete.
    let partial = folder.join("libs.partial");
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    run_command(maven.arg(format!("-DoutputDirectory={}", partial.display())).current_dir(&folder))?;
    std::fs::rename(&partial, &libs).context("cannot rename the fetched jars")?;
    Ok(folder)
}
