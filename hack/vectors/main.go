// Writes what two Go libraries make of generated texts, so that ours can be held to them.
//
// Usage, in this folder: go run . ../../src/api/testdata/version
//
// The texts come from a fixed seed: the same program writes the same files. Formats stand in
// src/api/src/version/vectors_tests.rs.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"

	masterminds "github.com/Masterminds/semver/v3"
	blang "github.com/blang/semver/v4"
)

var random = rand.New(rand.NewSource(20240801))

func pick(options ...string) string { return options[random.Intn(len(options))] }

func chance(percent int) bool { return random.Intn(100) < percent }

func number() string {
	return pick("0", "1", "2", "3", "4", "5", "6", "9", "10", "11", "16", "17", "29", "36", "01", "00", "007",
		"18446744073709551615", "18446744073709551616", "9223372036854775807", "")
}

func plain() string { return pick("0", "1", "2", "3", "4", "10") }

func word() string {
	return pick("alpha", "beta", "rc", "eks", "gke", "k3s1", "kops", "x", "0", "1", "2", "10", "01", "-", "--1", "a-b",
		"1a", "99999999999999999999", "99999999999999999998", "", "é", "a_b")
}

func tidyWord() string { return pick("alpha", "beta", "rc", "0", "1", "2", "10", "a-b", "1a", "x") }

func words(one func() string) string {
	parts := []string{one()}
	for chance(35) {
		parts = append(parts, one())
	}
	return strings.Join(parts, ".")
}

// A version, more often right than wrong.
func version() string {
	one, label := plain, tidyWord
	if chance(25) {
		one = number
	}
	if chance(25) {
		label = word
	}
	parts := []string{one()}
	for count := pick("3", "3", "3", "3", "2", "1", "4"); len(parts) < int(count[0]-'0'); {
		parts = append(parts, one())
	}
	text := strings.Join(parts, ".")
	if chance(15) {
		text = pick("v", "V", "vv", " ", "\t", "v ", "+", "-") + text
	}
	if chance(35) {
		text += "-" + words(label)
	}
	if chance(15) {
		text += "+" + words(label)
	}
	if chance(5) {
		text += pick(" ", "\n", ".", "-", "+", ".x", "..")
	}
	return text
}

func wild() string {
	switch random.Intn(9) {
	case 0:
		return plain() + "." + plain() + "." + pick("x", "X", "*")
	case 1:
		return plain() + "." + pick("x", "X", "*")
	case 2:
		return plain() + pick(".x.x", ".x.3", ".*.*", ".x.x.x", ".X", ".1x", ".x-rc")
	case 3:
		return pick("x", "*", "X", "xx", "v*", "1|2", "1.x.2|3")
	case 4:
		return plain() + "." + plain()
	case 5:
		return plain()
	case 6:
		return pick("1.+2.x", "1.-1.x", "01.x", "1.02.x", "9223372036854775807.x", "1.9223372036854775807.x", "1.2.3-x", "1.2.x-rc.1", "1.2-beta")
	default:
		return version()
	}
}

func rangeText() string {
	var text strings.Builder
	parts := 1 + random.Intn(3)
	for part := 0; part < parts; part++ {
		if part > 0 {
			if chance(95) {
				text.WriteString(pick(" ", " ", " ", "  ", " || ", " || "))
			} else {
				text.WriteString(pick("||", " ||", ",", " || || "))
			}
		}
		operator := pick("", "=", "==", "!", "!=", ">", ">=", "<", "<=", ">", ">=", "<", "<=", ">= ", "< ", "= ")
		if chance(5) {
			operator = pick("=>", "~", "^", "! ")
		}
		text.WriteString(operator)
		if chance(65) {
			text.WriteString(plain() + "." + plain() + "." + plain())
			if chance(20) {
				text.WriteString("-" + words(tidyWord))
			}
		} else if chance(60) {
			text.WriteString(plain() + pick(".x", ".x.x", "."+plain()+".x"))
		} else {
			text.WriteString(wild())
		}
	}
	if chance(4) {
		return pick(" ", "|| ", "") + text.String() + pick(" ||", " ", " x", " 1")
	}
	return text.String()
}

func constraintText() string {
	var text strings.Builder
	parts := 1 + random.Intn(3)
	for part := 0; part < parts; part++ {
		if part > 0 {
			text.WriteString(pick(" ", ", ", ",", " , ", " || ", "||", " || ", " - ", " - ", "  -\t", "-", ";", "", " ,, "))
		}
		text.WriteString(pick("", "=", "!=", ">", ">=", "=>", "<", "<=", "=<", "~", "~>", "^", "^", "~", "", "==", "> =", "! ", ">= ", "^ "))
		switch {
		case chance(45):
			text.WriteString(plain() + "." + plain() + "." + plain())
			if chance(20) {
				text.WriteString("-" + words(tidyWord))
			}
		case chance(30):
			text.WriteString(version())
		default:
			text.WriteString(wild())
		}
	}
	if chance(4) {
		return pick(" ", ",", "||", "") + text.String() + pick(" ", ",", "||", "|")
	}
	return text.String()
}

// What is asked of every range and constraint: near the numbers that these use.
func probes() []string {
	texts := []string{"0.0.0-0", "0.0.1-rc.1", "1.2.3-alpha", "1.2.3-alpha.1", "1.2.3-rc.10", "1.2.3-1", "2.0.0-0", "2.0.0-rc.1",
		"3.4.0-beta", "4.0.0-x", "10.10.10-a-b.1", "1.2.3+build", "1.2.3-rc+build", "5.0.0", "1.5.0", "11.0.0", "18446744073709551615.0.0"}
	for _, major := range []string{"0", "1", "2", "4", "10"} {
		for _, rest := range []string{"0.0", "0.1", "1.0", "1.2", "2.3", "2.4", "3.0", "3.10", "4.2", "10.0", "10.10"} {
			texts = append(texts, major+"."+rest)
		}
	}
	return texts
}

func quote(text string) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		panic(err)
	}
	return strings.TrimSpace(out.String())
}

// Four answers a hexadecimal digit, the first one in the highest bit.
func pack(answers []bool) string {
	var out strings.Builder
	for start := 0; start < len(answers); start += 4 {
		digit := 0
		for at := start; at < start+4; at++ {
			digit <<= 1
			if at < len(answers) && answers[at] {
				digit |= 1
			}
		}
		fmt.Fprintf(&out, "%x", digit)
	}
	return out.String()
}

func distinct(count int, fixed []string, make func() string) []string {
	seen := map[string]bool{}
	var texts []string
	add := func(text string) {
		if !seen[text] {
			seen[text] = true
			texts = append(texts, text)
		}
	}
	for _, text := range fixed {
		add(text)
	}
	for len(texts) < count {
		add(make())
	}
	return texts
}

func write(name string, lines []string) {
	file, err := os.Create(filepath.Join(os.Args[1], name))
	if err != nil {
		panic(err)
	}
	out := bufio.NewWriter(file)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	if err := out.Flush(); err != nil {
		panic(err)
	}
	if err := file.Close(); err != nil {
		panic(err)
	}
}

func orNone(text string, err error) string {
	if err != nil {
		return "-"
	}
	return quote(text)
}

func versions() {
	texts := distinct(4000, []string{"", "v", "1", "v1", "1.2", "v1.2.3", "v1.29.3-eks-adc7111", "v1.30.1+k3s1", " v1.6.0-beta.1 ",
		"1.2-beta", "01.02.03", "1.2.00", "1.2.0-0", "1.2.3-00", strings.Repeat("1", 257), "1.2.3-" + strings.Repeat("a", 251)}, version)
	var lines []string
	for _, text := range texts {
		strict, strictErr := blang.Parse(text)
		tolerant, tolerantErr := blang.ParseTolerant(text)
		loose := "-"
		if found, err := masterminds.NewVersion(text); err == nil {
			loose = quote(found.String())
		}
		lines = append(lines, strings.Join([]string{quote(text), orNone(strict.String(), strictErr), orNone(tolerant.String(), tolerantErr), loose}, "\t"))
	}
	write("versions.tsv", lines)
}

// How each of some versions compares to each, one row a version.
func orders() {
	texts := distinct(120, []string{"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
		"1.0.0-rc.1", "1.0.0", "1.0.0+build", "1.0.0-99999999999999999999", "1.0.0-99999999999999999998"}, func() string {
		for {
			text := version()
			if _, err := masterminds.NewVersion(text); err == nil {
				return text
			}
		}
	})
	sign := func(order int) string { return string("<=>"[order+1]) }
	var lines []string
	for _, left := range texts {
		var theirs, others strings.Builder
		for _, right := range texts {
			theirs.WriteString(sign(masterminds.MustParse(left).Compare(masterminds.MustParse(right))))
			one, oneErr := blang.ParseTolerant(left)
			two, twoErr := blang.ParseTolerant(right)
			if oneErr != nil || twoErr != nil {
				others.WriteString("-")
			} else {
				others.WriteString(sign(one.Compare(two)))
			}
		}
		lines = append(lines, strings.Join([]string{quote(left), theirs.String(), others.String()}, "\t"))
	}
	write("orders.tsv", lines)
}

func ranges(texts []string) {
	lines := []string{strings.Join(texts, " ")}
	for _, text := range distinct(5000, []string{"", " ", "x", "1", "||", ">=1.4.0 <1.6.0", "<1.6.0 || >=2.0.0", "1.x", "1.x.x", "!=1.2.x", ">1.x", "<=1.2.x"}, rangeText) {
		lines = append(lines, quote(text)+"\t"+answerRange(text, texts))
	}
	write("ranges.tsv", lines)
}

func answerRange(text string, texts []string) string {
	found, err := blang.ParseRange(text)
	if err != nil {
		return "-"
	}
	// An alternative without comparisons is a nil function: the library reads it, and panics once it gets to it.
	if strings.Contains(text, "|| ||") {
		return "panic"
	}
	var answers []bool
	for _, probe := range texts {
		answers = append(answers, found(blang.MustParse(probe)))
	}
	return pack(answers)
}

func constraints(texts []string) {
	lines := []string{strings.Join(texts, " ")}
	for _, text := range distinct(6000, []string{"", " ", "*", "^*", "~*", "!=*", ">*", "<=*", "<*", "^0.0", "^0", "~0.0.0", "1.2 - 1.4", "1.2 - 1.4 || 1.2 - 1.4",
		strings.Repeat("1", 513), strings.Repeat("1||", 32) + "1", strings.Repeat("1||", 31) + "1"}, constraintText) {
		found, err := masterminds.NewConstraint(text)
		if err != nil {
			lines = append(lines, quote(text)+"\t-")
			continue
		}
		var answers []bool
		for _, probe := range texts {
			answers = append(answers, found.Check(masterminds.MustParse(probe)))
		}
		lines = append(lines, quote(text)+"\t"+pack(answers))
	}
	write("constraints.tsv", lines)
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . DIR")
		os.Exit(2)
	}
	versions()
	orders()
	ranges(probes())
	constraints(probes())
}
