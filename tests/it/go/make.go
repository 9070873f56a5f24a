// Makes the archives beside it, as Go programs make them: `go run make.go` in this directory.
package main

import (
	"archive/tar"
	"compress/gzip"
	"os"
	"strings"
	"time"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	long := strings.Repeat("long-", 30)
	moment := time.Unix(1700000000, 123456789)
	for name, format := range map[string]tar.Format{
		"unspecified": tar.FormatUnknown, "ustar": tar.FormatUSTAR, "pax": tar.FormatPAX, "gnu": tar.FormatGNU,
	} {
		file, err := os.Create(name + ".tar.gz")
		must(err)
		packed, err := gzip.NewWriterLevel(file, 9)
		must(err)
		archive := tar.NewWriter(packed)
		add := func(header tar.Header, content string) {
			header.Format, header.Size, header.ModTime = format, int64(len(content)), moment
			if format == tar.FormatUSTAR || format == tar.FormatUnknown {
				header.ModTime = moment.Truncate(time.Second)
			}
			must(archive.WriteHeader(&header))
			_, err := archive.Write([]byte(content))
			must(err)
		}
		add(tar.Header{Typeflag: tar.TypeDir, Name: "dir/", Mode: 0o750}, "")
		add(tar.Header{Typeflag: tar.TypeReg, Name: "dir/program", Mode: 0o755}, "#!/bin/sh\n")
		add(tar.Header{Typeflag: tar.TypeReg, Name: "empty", Mode: 0o644}, "")
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "dir/program", Mode: 0o777}, "")
		add(tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "dir/program", Mode: 0o755}, "")
		add(tar.Header{Typeflag: tar.TypeReg, Name: "dir/" + strings.Repeat("n", 90), Mode: 0o600}, "ustar holds it\n")
		if format != tar.FormatUSTAR {
			add(tar.Header{Typeflag: tar.TypeReg, Name: "dir/" + long, Mode: 0o644}, "long\n")
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "far", Linkname: "dir/" + long, Mode: 0o777}, "")
			add(tar.Header{Typeflag: tar.TypeReg, Name: "größe", Mode: 0o644, Uid: 3000000, Gid: 3000000}, "ü\n")
		}
		must(archive.Close())
		must(packed.Close())
		must(file.Close())
	}
}
