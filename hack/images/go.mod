module quarterdeck.dev/hack/images

go 1.26
